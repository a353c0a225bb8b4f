"""The edge of chaos: weights and biases of a wide random network at which small differences neither grow nor vanish.

Source: arXiv 1902.06853. Layers are h -> f(W h + b) with W of variance sigma_w^2 / width and b of variance sigma_b^2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import BadInput
from .moments import curve_of, jumps, second_moment, slope_jumps
from .of_formula import FormulaFunction
from .protocol import Function

STATES = ("regular", "any variance", "vanishing", "diverging", "none")
# Fixed points are looked for up to this variance.
LARGEST = 1e8
_SMALL = 1e-7
# A gap below this is rounding.
_LEVEL = 1e-9


@dataclass(frozen=True)
class Edge:
    """A point (bias_deviation, weight_deviation) = (sigma_b, sigma_w) of the edge, and what the signal does there.

    variance: of pre-activations, a fixed point of the variance map. slope_of_variance: of that map at the point; above
        1 the variance runs away from it, so that networks of finite width do not stay there.
    power, rate: two inputs of correlation c become alike as 1 - c ~ rate / layer^power; power 1 for smooth functions,
        2 for those whose derivative jumps.
    state: `regular`; `any variance` (every variance stays as it is, as for ReLU: the value given is 1); `vanishing`
        (the signal shrinks to 0, where the function is a line); `diverging` (the variance grows without end, so that
        there is no such point); `none` (a function that jumps, or is constant: there is no edge).
    """

    bias_deviation: float
    weight_deviation: float
    variance: float
    slope_of_variance: float
    power: int
    rate: float
    state: str

    @property
    def usable(self) -> bool:
        """Whether weights can be drawn at this point."""
        return self.state in STATES[:3]

    def __str__(self) -> str:
        if not self.usable:
            return f"sigma_b {self.bias_deviation:g}: no edge ({self.state})"
        layers = "layer" if self.power == 1 else f"layer^{self.power}"
        alike = f"1 - c ~ {self.rate:.3g} / {layers}" if math.isfinite(self.rate) else "correlations stay"
        return (
            f"sigma_b {self.bias_deviation:g}, sigma_w {self.weight_deviation:.4f}, variance {self.variance:.4g} "
            f"({self.state}), {alike}"
        )


def edge(function: str | Function, bias_deviation: float | Sequence[float] = 0.0) -> Edge | list[Edge]:
    """The point of the edge of chaos for a deviation of biases, or a list of them for several: the curve.

    The variance is the smallest q >= sigma_b^2 with q = sigma_b^2 + E[f(h)^2] / E[f'(h)^2], h normal of variance q,
    found by bisection; then sigma_w = 1 / sqrt(E[f'(h)^2]). Raises `BadInput` for functions that mix elements and for
    deviations below 0. Cost: about 0.1 s a point.

    >>> print(edge("tanh", 0.2))
    sigma_b 0.2, sigma_w 1.3041, variance 0.5121 (regular), 1 - c ~ 7.08 / layer
    """
    f = curve_of(function)
    if isinstance(bias_deviation, Sequence):
        return [_point(f, float(one)) for one in bias_deviation]
    return _point(f, float(bias_deviation))


def _point(f: FormulaFunction, bias_deviation: float) -> Edge:
    if not (math.isfinite(bias_deviation) and bias_deviation >= 0):
        raise BadInput(f"the biases have a deviation of {bias_deviation}: give 0 or more")
    if jumps(f) or not second_moment(f, 1.0, 1) > 0:
        return _without(bias_deviation, "none")
    low = bias_deviation**2
    grid = [max(low, _SMALL) * 10 ** (step / 4) for step in range(int(4 * math.log10(LARGEST / max(low, _SMALL))))]
    gaps = [_gap(f, q, bias_deviation) for q in grid]
    # Where the function is a line, every variance stays: that is no fixed point to look for.
    first = next((number for number, gap in enumerate(gaps) if abs(gap) > _LEVEL), None)
    if first is None:
        return _at(f, 1.0, bias_deviation, "any variance")
    if gaps[first] < 0:
        return _at(f, 0.0, bias_deviation, "vanishing")
    # Up to the fixed point the gap is above 0.
    for number in range(first + 1, len(grid)):
        if gaps[number - 1] > 0 >= gaps[number]:
            q = _bisect(f, grid[number - 1], grid[number], bias_deviation)
            return _at(f, q, bias_deviation, "regular")
    return _without(bias_deviation, "diverging")


def _gap(f: FormulaFunction, q: float, bias_deviation: float) -> float:
    """How much larger the next variance would be than q, as a share of q."""
    below = second_moment(f, q, 1)
    above = second_moment(f, q)
    if not (below > 0 and math.isfinite(above)):
        return math.inf
    return (bias_deviation**2 + above / below - q) / q


def _bisect(f: FormulaFunction, low: float, high: float, bias_deviation: float) -> float:
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if _gap(f, middle, bias_deviation) > 0 else (low, middle)
    return math.sqrt(low * high)


def _at(f: FormulaFunction, q: float, bias_deviation: float, state: str) -> Edge:
    # In place of 0, where a kink would be of one side alone.
    near = max(q, 1e-10)
    below = second_moment(f, near, 1)
    if below < 1e-8:
        return _without(bias_deviation, "none")
    power, rate = _rate(f, near, 1 / below)
    rate = math.inf if power == 1 and q == 0 else rate
    step = near * 1e-4
    slope = (second_moment(f, near + step) - second_moment(f, near - step)) / (2 * step * below)
    weight_variance = 1 / below
    return Edge(bias_deviation, math.sqrt(weight_variance), q, slope, power, rate, state)


def _rate(f: FormulaFunction, q: float, weight_variance: float) -> tuple[int, float]:
    """How 1 - c falls with depth. Smooth: 2 E[f'^2] / (q E[f''^2]) / layer.

    Where f' jumps by J at x, small differences meet the jump in proportion to their size: c' = 1 - A sqrt(1 - c) with
    A = sigma_w^2 sum J^2 phi(x/sqrt(q)) / sqrt(pi), from which 1 - c ~ 9 / (A layer)^2. For ReLU that is the paper's
    9 pi^2 / 2; for other kinks it is ours.
    """
    found = slope_jumps(f)
    if found:
        density = sum(jump**2 * math.exp(-(x**2) / q / 2) / math.sqrt(2 * math.pi) for x, jump in found.items())
        return 2, 9 * math.pi / (weight_variance * density) ** 2 if density else math.inf
    curvature = q * second_moment(f, q, 2)
    return 1, 2 * second_moment(f, q, 1) / curvature if curvature else math.inf


def _without(bias_deviation: float, state: str) -> Edge:
    nan = math.nan
    return Edge(bias_deviation, nan, nan, nan, 0, nan, state)
