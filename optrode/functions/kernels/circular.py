"""Sine, cosine and arctangent on vectors."""

from __future__ import annotations

import math

from . import coefficients
from .exponential import nearest, table
from .lanes import Value

# pi/2 in parts: what the product with the first rounds off, the others give back.
_QUARTER = {
    "single": (1.5707963705062866, -4.371138828673793e-08, -1.7151245100058819e-15),
    "double": (1.5707963267948966, 6.123233995736766e-17, -1.4973849048591833e-33),
}
# Beyond this the reduction by pi/2 has no digits left.
REACH = {"single": 8192.0, "double": 2.0**30}


def arctan(u: Value) -> Value:
    lanes = u.lanes
    a = u.abs()
    steep = lanes.constant(1.0).below(a)
    t = steep.choose(lanes.constant(-1.0), a) / steep.choose(a, 1.0)
    found = t * lanes.polynomial(t * t, table(lanes, coefficients.ARCTANGENT))
    return steep.choose(found + math.pi / 2, found).with_sign_of(u)


def _turned(u: Value) -> tuple[Value, Value, Value]:
    """sin r, cos r, and the bits of n, where u = n pi/2 + r."""
    lanes = u.lanes
    n, bits = nearest(u, 2 / math.pi)
    r = u
    for part in table(lanes, _QUARTER):
        r = n.times_plus(-part, r)
    z = r * r
    sine = (r * z).times_plus(lanes.polynomial(z, table(lanes, coefficients.SINE)), r)
    series = lanes.polynomial(z, table(lanes, coefficients.COSINE))
    return sine, z.times_plus(series.times_plus(z, -0.5), 1.0), bits


def _signed(found: Value, bits: Value) -> Value:
    """The other sign where bit 1 is set."""
    lanes = found.lanes
    return (found.as_bits() ^ ((bits & 2) << (lanes.bits - 2))).as_real()


def sin(u: Value) -> Value:
    sine, cosine, bits = _turned(u)
    found = _signed((bits & 1).equals(0).choose(sine, cosine), bits)
    return u.equals(0.0).choose(u, found)


def cos(u: Value) -> Value:
    sine, cosine, bits = _turned(u)
    bits = bits + 1
    return _signed((bits & 1).equals(0).choose(sine, cosine), bits)


def sinc(u: Value) -> Value:
    return u.equals(0.0).choose(1.0, sin(u) / u)
