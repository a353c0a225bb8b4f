"""A slow, literal second implementation of the list: each formula rewritten as Python text and run in 60 digits.

It shares no code with the package. Derivatives are central differences with a step of 1e-20, which 60 digits allow.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any

import mpmath
from mpmath import mp, mpf

mp.dps = 60
STEP = mpf("1e-20")


def _sinc(u: Any) -> Any:
    return mpf(1) if u == 0 else mpmath.sin(u) / u


NAMES: dict[str, Any] = {
    "exp": mpmath.exp, "ln": mpmath.log, "sqrt": mpmath.sqrt, "abs": abs, "sgn": mpmath.sign, "sin": mpmath.sin,
    "cos": mpmath.cos, "tan": mpmath.tan, "arctan": mpmath.atan, "arcsin": mpmath.asin, "asinh": mpmath.asinh,
    "sinh": mpmath.sinh, "cosh": mpmath.cosh, "sech": mpmath.sech, "tanh": mpmath.tanh,
    "sigmoid": lambda u: 1 / (1 + mpmath.exp(-u)), "softplus": lambda u: mpmath.log(1 + mpmath.exp(u)),
    "relu": lambda u: u if u > 0 else mpf(0), "relu6": lambda u: min(max(u, mpf(0)), mpf(6)),
    "elu": lambda u: u if u > 0 else mpmath.exp(u) - 1, "erf": mpmath.erf, "Phi": mpmath.ncdf, "phi": mpmath.npdf,
    "sinc": _sinc, "Gamma": mpmath.gamma, "max": max, "min": min, "floor": mpmath.floor, "pi": mpmath.pi,
}  # fmt: skip


@cache
def twin(formula: str) -> Callable[..., Any]:
    """f(x, parameters) in 60 digits."""
    body, _, locals_ = formula.partition(" where ")
    pieces = [piece.strip() for piece in body.split(";")]
    text = ""
    for piece in pieces[:-1]:
        condition, expression = piece.split(":")
        text += f"({expression}) if ({condition}) else "
    text += f"({pieces[-1].split(':')[-1]})"
    named = [part.split("=", 1) for part in re.split(r",\s*(?=\w+=)", locals_)] if locals_ else []
    code = compile(_python(text), formula, "eval")
    extra = [(name.strip(), compile(_python(value), formula, "eval")) for name, value in reversed(named)]

    def run(x: Any, parameters: dict[str, Any]) -> Any:
        scope = {**NAMES, **parameters, "x": x}
        for name, value in extra:
            scope[name] = eval(value, scope)
        return eval(code, scope)

    return run


def _python(text: str) -> str:
    text = re.sub(r"(?<![\w.])(\d+\.?\d*(?:e-?\d+)?)", r"mpf('\1')", text.replace("^", "**"))
    return text.replace("mpf(", "_mpf(")


NAMES["_mpf"] = mpf


def value(formula: str, x: float, parameters: dict[str, float]) -> Any:
    """The value, or None where the formula has none (a pole, or no real number)."""
    return _value(formula, x, tuple(parameters.items()))


@cache
def _value(formula: str, x: float, parameters: tuple[tuple[str, float], ...]) -> Any:
    try:
        found = twin(formula)(mpf(x), {name: mpf(one) for name, one in parameters})
    except (ValueError, ZeroDivisionError, OverflowError, TypeError):
        return None
    return found if isinstance(found, mpf) else None


def slope(formula: str, x: float, parameters: dict[str, float]) -> tuple[Any, Any]:
    """Difference quotients to the right and to the left; None where there is none."""
    return _slope(formula, x, tuple(parameters.items()))


@cache
def _slope(formula: str, point: float, parameters: tuple[tuple[str, float], ...]) -> tuple[Any, Any]:
    run, given, x = twin(formula), {name: mpf(one) for name, one in parameters}, mpf(point)
    step = STEP * max(abs(x), 1)
    found: list[Any] = []
    for side in (step, -step):
        try:
            # Two steps away, so that a border of pieces at x itself belongs to neither side.
            found.append((-3 * run(x, given) + 4 * run(x + side, given) - run(x + 2 * side, given)) / (2 * side))
        except (ValueError, ZeroDivisionError, OverflowError, TypeError):
            found.append(None)
    good = [one if isinstance(one, mpf) else None for one in found]
    return good[0], good[1]
