"""The normal law and the error function on vectors, with full relative accuracy in the tails."""

from __future__ import annotations

import math

from . import coefficients
from .exponential import exp_below, table
from .lanes import Value


def _gaussian(a: Value, factor: float) -> Value:
    """exp(-factor a^2) for a >= 0, with the rounding of the square given back."""
    square = a * a
    lost = a.times_plus(a, -square) * -factor
    found = exp_below(square * -factor)
    return found.times_plus(lost, found)


def _scaled_complement(u: Value, factor: float) -> Value:
    """exp(a^2) erfc(a), where a = factor u >= 0."""
    t = u.lanes.constant(1.0) / u.times_plus(coefficients.RATE * factor, 1.0)
    centred = t.times_plus(2.0, -1.0)
    return t * u.lanes.polynomial(centred, table(u.lanes, coefficients.SCALED_COMPLEMENT))


def _bounded(a: Value, most: float) -> Value:
    return a.lanes.constant(most).below(a).choose(most, a)


def erf(u: Value) -> Value:
    lanes = u.lanes
    a = u.abs()
    near = a * lanes.polynomial(_bounded(a * a, 1.0), table(lanes, coefficients.ERROR_FUNCTION))
    a = _bounded(a, 30.0)
    far = lanes.constant(1.0) - _scaled_complement(a, 1.0) * _gaussian(a, 1.0)
    return a.below(1.0).choose(near, far).with_sign_of(u)


def normal_cdf(u: Value) -> Value:
    a = _bounded(u.abs(), 60.0)
    tail = _scaled_complement(a, math.sqrt(0.5)) * _gaussian(a, 0.5) * 0.5
    return u.below(0.0).choose(tail, u.lanes.constant(1.0) - tail)


def normal_density(u: Value) -> Value:
    return _gaussian(_bounded(u.abs(), 60.0), 0.5) * (1 / math.sqrt(2 * math.pi))


def hazard(u: Value) -> Value:
    """Density over upper tail; far below 0, where the tail is all there is, the density."""
    a = _bounded(u.abs(), 1e18 if u.lanes.precision == "single" else 1e150)
    scaled = _scaled_complement(a, math.sqrt(0.5))
    above = u.lanes.constant(math.sqrt(2 / math.pi)) / scaled
    tail = scaled * _gaussian(a, 0.5) * 0.5
    return u.below(0.0).choose(normal_density(u) / (u.lanes.constant(1.0) - tail), above)
