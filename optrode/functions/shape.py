"""What a function looks like, measured at its defaults: where it is defined, what it reaches, whether it rises."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .of_formula import FormulaFunction


@dataclass(frozen=True)
class Shape:
    """Measured in float64 on about 16 000 points of [-10 000, 10 000], dense near 0.

    domain: the smallest and largest point with a finite value. range: the smallest and largest value; infinite where
    it still grows like a power at the ends. monotony: `increasing`, `decreasing` or `neither`; a constant piece is
    allowed in either of the first two. odd, even: about 0. fixed_zero: f(0) = 0.
    """

    domain: tuple[float, float]
    range: tuple[float, float]
    monotony: str
    odd: bool
    even: bool
    fixed_zero: bool


END = 1e4


@cache
def grid() -> Tensor:
    near = torch.linspace(-20, 20, 8001, dtype=torch.float64)
    far = torch.logspace(torch.tensor(20.0).log10(), 4, 4000, dtype=torch.float64)
    return torch.cat([-far.flip(0), near, far])


def shape_of(function: FormulaFunction) -> Shape:
    x = grid()
    with torch.no_grad():
        y = function(x)
    good = torch.isfinite(y)
    if not bool(good.any()):
        nan = float("nan")
        return Shape((nan, nan), (nan, nan), "neither", False, False, False)
    x, y = x[good], y[good]
    low, high = float(x[0]), float(x[-1])
    domain = (-torch.inf if low <= -END else low, torch.inf if high >= END else high)
    step, size = y.diff(), 1e-9 * y.abs().clamp(min=1)[1:]
    rises, falls = bool((step >= -size).all()), bool((step <= size).all())
    mirrored = bool(good.equal(good.flip(0)))
    scale = 1e-9 * y.abs().clamp(min=1)
    return Shape(
        domain,
        (_end(y, -1), _end(y, 1)),
        "increasing" if rises else "decreasing" if falls else "neither",
        mirrored and bool(((y + y.flip(0)).abs() <= scale).all()),
        mirrored and bool(((y - y.flip(0)).abs() <= scale).all()),
        bool(y[x == 0].abs().sum() == 0) if bool((x == 0).any()) else False,
    )


def _end(y: Tensor, sign: int) -> float:
    """The largest value of sign * y, or infinity where it is at an end and well above its size halfway there."""
    values = sign * y
    place = int(values.argmax())
    half = values[len(values) // 8 : -(len(values) // 8)].max()
    edge = place < 200 or place >= len(values) - 200
    if edge and float(values.max()) > 2 and float(values.max()) > 1.5 * float(half):
        return sign * float("inf")
    return float(y[place])
