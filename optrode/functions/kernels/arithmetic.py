"""What stands for each operation of an expression on vectors."""

from __future__ import annotations

from collections.abc import Callable

from .circular import arctan, cos, sin, sinc
from .exponential import exp, expm1, ln, log1p
from .hyperbolic import (
    asinh,
    cosh,
    lncosh,
    sech,
    sech_of_softplus,
    sigmoid,
    sinh,
    softplus,
    tanh,
    tanh_of_softplus,
)
from .lanes import Value
from .normal import erf, hazard, normal_cdf, normal_density


def whole_power(u: Value, exponent: int) -> Value:
    """By squaring, for an exponent above 0."""
    found, square = None, u
    while exponent:
        if exponent & 1:
            found = square if found is None else found * square
        exponent >>= 1
        square = square * square if exponent else square
    assert found is not None
    return found


def hypot(u: Value, v: Value) -> Value:
    """With both moved towards 1 by a power of 2 where a square could leave the range."""
    lanes = u.lanes
    a, b = u.abs(), v.abs()
    high = a.below(b).choose(b, a)
    edge, step = (2.0**60, 2.0**80) if lanes.precision == "single" else (2.0**500, 2.0**600)
    large, small = lanes.constant(edge).below(high), high.below(1 / edge)
    scale = large.choose(lanes.constant(1 / step), small.choose(lanes.constant(step), lanes.constant(1.0)))
    back = large.choose(lanes.constant(step), small.choose(lanes.constant(1 / step), lanes.constant(1.0)))
    a, b = a * scale, b * scale
    return a.times_plus(a, b * b).sqrt() * back


def sign(u: Value) -> Value:
    one = u.lanes.constant(1.0).with_sign_of(u)
    return (u.equals(0.0) | u.undefined()).choose(u, one)


def maximum(u: Value, v: Value) -> Value:
    """NaN where one of them is."""
    return (v.below(u) | u.undefined()).choose(u, v)


def minimum(u: Value, v: Value) -> Value:
    return (u.below(v) | u.undefined()).choose(u, v)


def _elu(u: Value) -> Value:
    return u.lanes.constant(0.0).below(u).choose(u, expm1(u))


# A function of a function that needs fewer exponentials than both.
OF_FUNCTION: dict[tuple[str, str], Callable[[Value], Value]] = {
    ("tanh", "softplus"): tanh_of_softplus,
    ("sech", "softplus"): sech_of_softplus,
}

ONE_ARGUMENT: dict[str, Callable[[Value], Value]] = {
    "exp": exp, "expm1": expm1, "ln": ln, "log1p": log1p, "sqrt": Value.sqrt, "abs": Value.abs, "sgn": sign,
    "floor": Value.floor, "sin": sin, "cos": cos, "arctan": arctan, "asinh": asinh, "sinh": sinh, "cosh": cosh,
    "sech": sech, "tanh": tanh, "sigmoid": sigmoid, "softplus": softplus, "lncosh": lncosh, "elu": _elu, "erf": erf,
    "Phi": normal_cdf, "phi": normal_density, "hazard": hazard, "sinc": sinc,
    "relu": lambda u: u.below(0.0).choose(0.0, u),
    "relu6": lambda u: minimum(u.below(0.0).choose(0.0, u), u.lanes.constant(6.0)),
}  # fmt: skip
