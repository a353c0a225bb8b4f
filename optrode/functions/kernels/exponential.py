"""Exponentials and logarithms on vectors: a short interval by a power of 2, and a polynomial there.

Exponentials below the least normal number are 0. Infinities and NaN come out as they should.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from . import coefficients
from .lanes import Lanes, Value

INF = math.inf
LN2 = math.log(2)
# ln 2 in parts: products of the first with small integers lose nothing that the second does not give back.
_LN2 = {"single": (0.693145751953125, 1.428606820309417e-06), "double": (LN2, 2.3190468138462996e-17)}
# The first part times any exponent is exact.
_LN2_SHORT = {"single": _LN2["single"], "double": (6.93147180369123816490e-01, 1.90821492927058770002e-10)}
# From here on e^u is no finite number, or no normal one.
_HIGHEST = {"single": 88.72283, "double": 709.782712893384}
_LOWEST = {"single": -86.6, "double": -707.7}


def table(lanes: Lanes, which: Mapping[str, tuple[float, ...]]) -> tuple[float, ...]:
    return which[lanes.precision]


def nearest(u: Value, factor: float) -> tuple[Value, Value]:
    """The integer next to u * factor, as a number and in the low bits."""
    lanes = u.lanes
    magic = 1.5 * 2.0**lanes.mantissa
    shifted = u.times_plus(factor, magic)
    return shifted - magic, shifted.as_bits()


def _reduced(u: Value) -> tuple[Value, Value]:
    """2^(n-1) and e^r - 1, where u = n ln 2 + r."""
    lanes = u.lanes
    n, bits = nearest(u, 1 / LN2)
    r = u
    for part in table(lanes, _LN2):
        r = n.times_plus(-part, r)
    grown = r * lanes.polynomial(r, table(lanes, coefficients.EXPONENTIAL))
    half = lanes.integer((lanes.bias - 1) << lanes.mantissa)
    return ((bits << lanes.mantissa) + half).as_real(), grown


def exp(u: Value) -> Value:
    scale, grown = _reduced(u)
    found = grown.times_plus(2.0, 2.0) * scale
    found = u.below(_LOWEST[u.lanes.precision]).choose(0.0, found)
    return u.lanes.constant(_HIGHEST[u.lanes.precision]).below(u).choose(INF, found)


def exp_below(u: Value) -> Value:
    """e^u for u <= 0."""
    scale, grown = _reduced(u)
    return u.below(_LOWEST[u.lanes.precision]).choose(0.0, grown.times_plus(2.0, 2.0) * scale)


def _expm1_below(u: Value) -> Value:
    """e^u - 1 for u <= 0."""
    scale, grown = _reduced(u)
    twice = scale + scale
    return u.below(-40.0).choose(-1.0, twice.times_plus(grown, twice - 1.0))


def expm1(u: Value) -> Value:
    return u.lanes.constant(60.0).below(u).choose(exp(u), _expm1_below(u))


def _split(u: Value) -> tuple[Value, Value, Value]:
    """e as a number, the same in the bits of an exponent, and f, where u = 2^e (1 + f) and 1 + f is near 1."""
    lanes = u.lanes
    low = lanes.constant(math.sqrt(0.5)).as_bits()
    mask = -(1 << lanes.mantissa)
    shift = (u.as_bits() - low) & lanes.integer(mask)
    magic = 1.5 * 2.0**lanes.mantissa
    exponent = ((shift >> lanes.mantissa) + lanes.constant(magic).as_bits()).as_real() - magic
    return exponent, shift, (u.as_bits() - shift).as_real() - 1.0


def _joined(exponent: Value, f: Value) -> Value:
    high, low = table(exponent.lanes, _LN2_SHORT)
    return exponent.times_plus(high, exponent.times_plus(low, _of_fraction(f)))


def _of_fraction(f: Value) -> Value:
    return f * f.lanes.polynomial(f, table(f.lanes, coefficients.LOGARITHM))


def _normal(u: Value) -> tuple[Value, Value]:
    """Exponent and fraction of a positive u, which may be below the least normal number."""
    lanes = u.lanes
    small = u.below(2.0 ** (1 - lanes.bias))
    exponent, _, f = _split(small.choose(u * 2.0 ** (lanes.mantissa + 1), u))
    return small.choose(exponent - float(lanes.mantissa + 1), exponent), f


def ln(u: Value) -> Value:
    found = _joined(*_normal(u))
    found = u.equals(0.0).choose(-INF, u.below(0.0).choose(math.nan, found))
    return (u.equals(INF) | u.undefined()).choose(u, found)


def log1p(u: Value) -> Value:
    """The rounding of 1 + u is given back in units of the reduced number."""
    lanes = u.lanes
    whole = u + 1.0
    back = whole - 1.0
    lost = (u - back) + (lanes.constant(1.0) - (whole - back))
    exponent, shift, f = _split(whole)
    scale = (lanes.constant(1.0).as_bits() - shift).as_real()
    found = _joined(exponent, f + lost * scale)
    found = whole.equals(0.0).choose(-INF, whole.below(0.0).choose(math.nan, found))
    return (u.equals(INF) | u.undefined()).choose(u, found)


def log1p_of_unit(u: Value) -> Value:
    """ln(1 + u) for u from 0 to 1."""
    lanes = u.lanes
    whole = u + 1.0
    lost = u - (whole - 1.0)
    exponent, shift, f = _split(whole)
    scale = (lanes.constant(1.0).as_bits() - shift).as_real()
    return _joined(exponent, f + lost * scale)


def power(u: Value, v: Value) -> Value:
    """u^v by a logarithm in two parts; of a negative u for whole v only. Its error grows with v, from two units on."""
    lanes = u.lanes
    exponent, f = _normal(u.abs())
    first, second = table(lanes, _LN2_SHORT)
    rest = exponent.times_plus(second, _of_fraction(f))
    high = exponent.times_plus(first, rest)
    low = rest - exponent.times_plus(-first, high)
    edge = u.equals(0.0) | u.abs().equals(INF)
    logarithm = edge.choose(u.equals(0.0).choose(lanes.constant(-INF), lanes.constant(INF)), high)
    product = v * logarithm
    lost = v.times_plus(logarithm, -product) + v * low
    found = exp(product)
    found = (lost.abs().below(1.0) & found.below(INF)).choose(found.times_plus(lost, found), found)
    found = (v.equals(0.0) | u.equals(1.0)).choose(1.0, found)
    whole = v.floor().equals(v)
    odd = ~(v * 0.5).floor().equals(v * 0.5)
    negative = whole.choose(odd.choose(-found, found), lanes.constant(math.nan))
    found = u.below(0.0).choose(negative, found)
    return u.undefined().choose(u, found)
