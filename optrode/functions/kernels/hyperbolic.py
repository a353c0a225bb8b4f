"""Sigmoid, softplus and the hyperbolic functions on vectors, by one exponential each that similar ones share."""

from __future__ import annotations

from . import coefficients
from .exponential import LN2, exp, exp_below, expm1, ln, log1p, log1p_of_unit, table
from .lanes import Value


def sigmoid(u: Value) -> Value:
    e = exp_below(-u.abs())
    share = u.lanes.constant(1.0) / (e + 1.0)
    return u.below(0.0).choose(e * share, share)


def softplus(u: Value) -> Value:
    return u.below(0.0).choose(0.0, u) + log1p_of_unit(exp_below(-u.abs()))


def _two_sided(u: Value) -> tuple[Value, Value]:
    """e^-2|u|, and one over 1 + it."""
    e = exp_below(u.abs() * -2.0)
    return e, u.lanes.constant(1.0) / (e + 1.0)


def tanh(u: Value) -> Value:
    a, z = u.abs(), u * u
    series = u.lanes.polynomial(z, table(u.lanes, coefficients.TANGENT))
    near = (a * z).times_plus(series, a)
    e, inverse = _two_sided(u)
    return a.below(0.625).choose(near, (e * inverse).times_plus(-2.0, 1.0)).with_sign_of(u)


def sech(u: Value) -> Value:
    e = exp_below(-u.abs())
    return (e + e) / e.times_plus(e, 1.0)


def sech_squared(u: Value) -> Value:
    """From what `tanh` of the same u computes."""
    e, inverse = _two_sided(u)
    return e * 4.0 * inverse * inverse


def _halves_of_softplus(u: Value) -> tuple[Value, Value, Value]:
    """Whether u is below 0; e^-|u|; 1 + e^-|u|."""
    e = exp_below(-u.abs())
    return u.below(0.0), e, e + 1.0


def tanh_of_softplus(u: Value) -> Value:
    """(n^2 + 2n)/(n^2 + 2n + 2) of n = e^u, with both divided by n^2 for u > 0."""
    below, e, _ = _halves_of_softplus(u)
    rising, settled = e * (e + 2.0), e.times_plus(2.0, 1.0)
    top = below.choose(rising, settled)
    return top / (top + below.choose(2.0, e * e * 2.0))


def sech_of_softplus(u: Value) -> Value:
    """2(1 + n)/((1 + n)^2 + 1) of n = e^u, with both divided by n^2 for u > 0."""
    below, e, whole = _halves_of_softplus(u)
    top = below.choose(whole, e * whole)
    return (top + top) / whole.times_plus(whole, below.choose(1.0, e * e))


def _large(a: Value) -> tuple[Value, Value]:
    """e^a/2, which is finite for longer than e^a, and its share e^-a/2."""
    root = exp(a * 0.5)
    return root * 0.5 * root, a.lanes.constant(0.5) / (root * root)


def sinh(u: Value) -> Value:
    a = u.abs()
    e = expm1(a)
    grown, vanishing = _large(a)
    return a.below(1.0).choose((e + e / (e + 1.0)) * 0.5, grown - vanishing).with_sign_of(u)


def cosh(u: Value) -> Value:
    grown, vanishing = _large(u.abs())
    return grown + vanishing


def lncosh(u: Value) -> Value:
    far = u.abs() + log1p_of_unit(exp_below(u.abs() * -2.0)) - LN2
    half = sinh(u * 0.5)
    return u.abs().below(1.0).choose(log1p(half * half * 2.0), far)


def asinh(u: Value) -> Value:
    a = u.abs()
    far = a.lanes.constant(2.0**14 if u.lanes.precision == "single" else 2.0**30).below(a)
    near = far.choose(1.0, a)
    square = near * near
    found = log1p(near + square / ((square + 1.0).sqrt() + 1.0))
    return far.choose(ln(a) + LN2, found).with_sign_of(u)
