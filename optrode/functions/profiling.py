"""The analytic profile of a function: extremes of its derivatives, roots, constants, limits and moments."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .moments import curve_of, jumps, mean, second_moment, slope_jumps
from .moments import kinks as kinks_of
from .of_formula import FormulaFunction
from .protocol import Function

_POINTS = 4001
_FAR = 1e6


@dataclass(frozen=True)
class Extreme:
    """A value and where it is; at a kink, that of the side which gives it."""

    value: float
    at: float


@dataclass(frozen=True)
class Profile:
    """See `profile`. `lipschitz`: max |f'|; `smoothness`: max |f''|, infinite where the derivative jumps. `roots` of f
    are those where its sign changes or touches 0. `slope_left`, `slope_right`: f' far out; `excess_right`: f(x) - x far
    to the right, infinite where it has no limit. `mean`, `square`, `slope_square`: E[f], E[f^2], E[f'^2] of a normal
    input."""

    name: str
    interval: tuple[float, float]
    lowest: Extreme
    highest: Extreme
    slope: tuple[Extreme, Extreme]
    curvature: tuple[Extreme, Extreme]
    lipschitz: float
    smoothness: float
    roots: tuple[float, ...]
    inflections: tuple[float, ...]
    kinks: tuple[float, ...]
    slope_left: float
    slope_right: float
    excess_right: float
    mean: float
    square: float
    slope_square: float


def profile(
    function: str | Function, interval: tuple[float, float] = (-10.0, 10.0), *, deviation: float = 1.0
) -> Profile:
    """What analysis says of an elementwise function at its defaults, over an interval; moments for N(0, deviation^2).

    Derivatives are symbolic; extremes are refined between grid points, roots by bisection, and kinks are taken from the
    formula, with the derivative on either side. Raises `BadInput` for functions that mix elements. Cost: milliseconds.
    Source: the quantities of arXiv 2305.12073.

    >>> found = profile("gelu")
    >>> round(found.lowest.value, 6), round(found.lowest.at, 6), round(found.lipschitz, 6)
    (-0.169971, -0.751792, 1.128904)
    """
    f = curve_of(function)
    curves = [_Curve(f, order) for order in range(3)]
    points = _grid(f, interval)
    lowest, highest = _extremes(curves[0], points)
    slope, curvature = _extremes(curves[1], points), _extremes(curves[2], points)
    broken = bool(jumps(f))
    far = torch.tensor([-_FAR, _FAR], dtype=torch.float64)
    left, right = curves[1](far).tolist()
    return Profile(
        f.name, interval, lowest, highest, slope, curvature,
        float("inf") if broken else max(abs(one.value) for one in slope),
        float("inf") if broken or slope_jumps(f) else max(abs(one.value) for one in curvature),
        _roots(curves[0], points), _roots(curves[2], points),
        tuple(kink for kink in kinks_of(f) if interval[0] <= kink <= interval[1]),
        left, right, _excess(curves[0]), mean(f, deviation**2),
        second_moment(f, deviation**2), second_moment(f, deviation**2, 1),
    )  # fmt: skip


class _Curve:
    """A function or one of its derivatives at its defaults."""

    def __init__(self, f: FormulaFunction, order: int):
        self.operation = f.operation
        for _ in range(order):
            self.operation = self.operation.by(0)
        self.values = list(f.initial().values())

    def __call__(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return self.operation(x, self.values)


def _grid(f: FormulaFunction, interval: tuple[float, float]) -> Tensor:
    """Points of the interval, with the two sides of every kink."""
    low, high = interval
    sides = [kink + sign * 1e-9 * max(1.0, abs(kink)) for kink in kinks_of(f) for sign in (-1, 1)]
    inside = [side for side in sides if low <= side <= high]
    whole = torch.cat([torch.linspace(low, high, _POINTS, dtype=torch.float64), torch.tensor(inside).double()])
    return whole.sort().values


def _extremes(curve: _Curve, points: Tensor) -> tuple[Extreme, Extreme]:
    """The smallest and the largest value, finer than the grid."""
    return _extreme(curve, points, -1), _extreme(curve, points, 1)


def _extreme(curve: _Curve, points: Tensor, sign: int) -> Extreme:
    place = int((sign * curve(points)).nan_to_num(-float("inf"), neginf=-float("inf")).argmax())
    low, high = points[max(0, place - 1)], points[min(len(points) - 1, place + 1)]
    best, value = points[place], curve(points[place : place + 1])[0]
    for _ in range(12):
        near = torch.linspace(float(low), float(high), 41, dtype=torch.float64)
        found = curve(near)
        inner = int((sign * found).argmax())
        # Beside a kink the finer grid would step over it: the grid's own point stays unless a better one is found.
        if float(sign * (found[inner] - value)) > 0:
            best, value = near[inner], found[inner]
        low, high = near[max(0, inner - 1)], near[min(40, inner + 1)]
    return Extreme(float(value) + 0.0, float(best) + 0.0)


def _roots(curve: _Curve, points: Tensor) -> tuple[float, ...]:
    """Where the sign changes, and isolated points where the value is 0."""
    y = curve(points)
    found = []
    for place in (y[1:] * y[:-1] < 0).nonzero().flatten().tolist():
        low, high = float(points[place]), float(points[place + 1])
        rising = float(y[place + 1]) > 0
        for _ in range(80):
            middle = (low + high) / 2
            above = float(curve(torch.tensor([middle], dtype=torch.float64))) > 0
            low, high = (low, middle) if above == rising else (middle, high)
        found.append((low + high) / 2)
    zero = (y == 0).nonzero().flatten().tolist()
    # A stretch of zeros, such as the left half of ReLU, is no root.
    lone = [p for p in zero if 0 < p < len(y) - 1 and float(y[p - 1]) != 0 and float(y[p + 1]) != 0]
    return tuple(sorted({round(one, 9) + 0.0 for one in [*found, *points[lone].tolist()]}))


def _excess(curve: _Curve) -> float:
    """The limit of f(x) - x, infinite where it still changes far out."""
    far = torch.tensor([1e3, 1e4], dtype=torch.float64)
    near, further = (curve(far) - far).tolist()
    return further if abs(further - near) < 1e-3 * max(1.0, abs(further)) else float("inf") * (1 if further > 0 else -1)
