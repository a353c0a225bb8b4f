"""Writes optrode/functions/kernels/coefficients.py: the polynomials behind exp, ln, sine, arctangent and erf.

Each is the interpolation at Chebyshev nodes in 60 digits, of the least degree that keeps the relative error small.
`python tools/polynomials.py`
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mpmath
from mpmath import mpf

TARGET = Path(__file__).parents[1] / "optrode" / "functions" / "kernels" / "coefficients.py"
# Relative errors for arithmetic in float32 and in float64.
BOUNDS = {"single": mpf(2) ** -26, "double": mpf(2) ** -55}
# erfcx is t times a polynomial of 2t - 1, where t = 1/(1 + RATE a).
RATE = mpf("0.4")

HEADER = '''"""Coefficients by precision, lowest power first. Written by `tools/polynomials.py`: do not edit."""

from __future__ import annotations

# fmt: off
'''


def _exponential(r: Any) -> Any:
    """(exp(r) - 1)/r on half of ln 2 to both sides."""
    return mpmath.expm1(r) / r if r else mpf(1)


def _logarithm(f: Any) -> Any:
    """ln(1 + f)/f."""
    return mpmath.log1p(f) / f if f else mpf(1)


def _sine(z: Any) -> Any:
    """(sin(r)/r - 1)/z, where z = r^2."""
    r = mpmath.sqrt(z)
    return (mpmath.sin(r) / r - 1) / z if z > 1e-25 else mpf(-1) / 6 + z / 120


def _cosine(z: Any) -> Any:
    """(cos(r) - 1 + z/2)/z^2."""
    return (mpmath.cos(mpmath.sqrt(z)) - 1 + z / 2) / z**2 if z > 1e-15 else mpf(1) / 24 - z / 720


def _hyperbolic_tangent(z: Any) -> Any:
    """(tanh(u)/u - 1)/z, where z = u^2."""
    u = mpmath.sqrt(z)
    return (mpmath.tanh(u) / u - 1) / z if z > 1e-25 else mpf(-1) / 3 + 2 * z / 15


def _arctangent(z: Any) -> Any:
    """arctan(t)/t, where z = t^2."""
    t = mpmath.sqrt(z)
    return mpmath.atan(t) / t if t else mpf(1)


def _error_function(z: Any) -> Any:
    """erf(a)/a, where z = a^2."""
    a = mpmath.sqrt(z)
    return mpmath.erf(a) / a if a else 2 / mpmath.sqrt(mpmath.pi)


def _scaled_complement(centred: Any) -> Any:
    """exp(a^2) erfc(a)/t, where t = (centred + 1)/2 = 1/(1 + RATE a)."""
    t = (centred + 1) / 2
    if t < mpf(10) ** -20:
        return RATE / mpmath.sqrt(mpmath.pi)
    a = (1 / t - 1) / RATE
    if a < 60:
        return mpmath.exp(a * a) * mpmath.erfc(a) / t
    series = mpmath.fsum((-1) ** k * mpmath.fac2(2 * k - 1) / (2 * a * a) ** k for k in range(16))
    return series / (a * mpmath.sqrt(mpmath.pi)) / t


HALF = mpmath.log(2) / 2
ROOT = mpmath.sqrt(2)
FUNCTIONS: dict[str, tuple[Callable[[Any], Any], Any, Any]] = {
    "EXPONENTIAL": (_exponential, -HALF * mpf("1.001"), HALF * mpf("1.001")),
    "LOGARITHM": (_logarithm, 1 / ROOT - mpf("1.0001"), ROOT - mpf("0.9999")),
    "SINE": (_sine, mpf(0), (mpmath.pi / 4) ** 2 * mpf("1.001")),
    "COSINE": (_cosine, mpf(0), (mpmath.pi / 4) ** 2 * mpf("1.001")),
    "TANGENT": (_hyperbolic_tangent, mpf(0), mpf("0.625") ** 2),
    "ARCTANGENT": (_arctangent, mpf(0), mpf(1)),
    "ERROR_FUNCTION": (_error_function, mpf(0), mpf(1)),
    "SCALED_COMPLEMENT": (_scaled_complement, mpf(-1), mpf(1)),
}
# What a correction may err, where the whole is 1 + z * correction.
SLACK = {"SINE": mpf(4), "COSINE": mpf(8), "TANGENT": mpf(4)}


def fitted(function: Callable[[Any], Any], low: Any, high: Any, bound: Any) -> list[Any]:
    """Coefficients of the least degree whose relative error stays below the bound."""
    for degree in range(2, 60):
        middle, half = (low + high) / 2, (high - low) / 2
        nodes = [mpmath.cos(mpmath.pi * (2 * k + 1) / (2 * degree + 2)) for k in range(degree + 1)]
        found = _interpolated(nodes, [function(middle + half * node) for node in nodes])
        checks = [mpf(k) / 100 - 1 for k in range(201)]
        worst = max(abs(mpmath.polyval(found[::-1], u) / function(middle + half * u) - 1) for u in checks)
        if worst <= bound:
            return _shifted(found, middle, half)
    raise ValueError("no polynomial below degree 60 is good enough")


def _interpolated(nodes: list[Any], values: list[Any]) -> list[Any]:
    """Newton's divided differences, multiplied out."""
    table = list(values)
    for level in range(1, len(nodes)):
        for place in range(len(nodes) - 1, level - 1, -1):
            table[place] = (table[place] - table[place - 1]) / (nodes[place] - nodes[place - level])
    found = [table[-1]]
    for place in range(len(nodes) - 2, -1, -1):
        found = [mpf(0), *found]
        for power in range(len(found) - 1):
            found[power] -= nodes[place] * found[power + 1]
        found[0] += table[place]
    return found


def _shifted(found: list[Any], middle: Any, half: Any) -> list[Any]:
    """The polynomial in u = (v - middle)/half as one in v."""
    result = [mpf(0)]
    for coefficient in reversed(found):
        raised = [mpf(0), *[value / half for value in result]]
        for power, value in enumerate(result):
            raised[power] -= value * middle / half
        raised[0] += coefficient
        result = raised
    while len(result) > 1 and result[-1] == 0:
        result.pop()
    return result


def main() -> None:
    mpmath.mp.dps = 60
    lines = [HEADER]
    for name, (function, low, high) in FUNCTIONS.items():
        lines.append(f"{name} = {{")
        for precision, bound in BOUNDS.items():
            found = fitted(function, low, high, bound * SLACK.get(name, 1))
            lines.append(f'    "{precision}": (')
            lines += [f"        {float(value)!r}," for value in found]
            lines.append("    ),")
            print(f"{name} {precision}: degree {len(found) - 1}")
        lines.append("}")
    lines.append(f"RATE = {float(RATE)!r}")
    TARGET.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
