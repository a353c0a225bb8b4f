"""Sums of hinges and piecewise linear tables."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .primitives import at, bins, combined, hinge, table_lookup, total
from .registry import Call, builds


def prelu(x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x >= 0, x, slope * x)


@builds("APLU", a=(0.0, 0.0), b=(0.0, 1.0))
def aplu(x: Tensor, p: Any, call: Call) -> Tensor:
    """Starts as ReLU; its paper adds an L2 penalty of 0.001."""
    return hinge(x) + combined(p.a, [hinge(b - x) for b in p.b.unbind(-1)])


@builds("SPLASH", fixed=("b",), ap=(1.0, 0.0, 0.0, 0.0), am=(0.0, 0.0, 0.0, 0.0), b=(0.0, 1.0, 2.0, 2.5))
def splash(x: Tensor, p: Any, call: Call) -> Tensor:
    borders = p.b.unbind(-1)
    return combined(p.ap, [hinge(x - b) for b in borders]) + combined(p.am, [hinge(-x - b) for b in borders])


# The k = 8 bumps of MeLU on [-4, 4]: one over all, then halves, then quarters.
CENTRES, SPREADS = (0.0, -2.0, 2.0, -3.0, -1.0, 1.0, 3.0), (4.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0)


@builds("MeLU", fixed=("b", "c"), slope=0.25, a=(0.0,) * 7, b=CENTRES, c=SPREADS)
def melu(x: Tensor, p: Any, call: Call) -> Tensor:
    parts = [hinge(c - (x - b).abs()) for b, c in zip(p.b.unbind(-1), p.c.unbind(-1), strict=True)]
    return prelu(x, p.slope) + combined(p.a, parts)


@builds("GaLU", fixed=("b", "c"), slope=0.25, a=(0.0,) * 3, b=CENTRES[:3], c=SPREADS[:3])
def galu(x: Tensor, p: Any, call: Call) -> Tensor:
    parts = [
        hinge(c - (x - b).abs()) + ((x - b - 2 * c).abs() - c).clamp(max=0)
        for b, c in zip(p.b.unbind(-1), p.c.unbind(-1), strict=True)
    ]
    return prelu(x, p.slope) + combined(p.a, parts)


@builds("linear spline AF", a=(1.0, 0.0), b=(1.0, -1.0), c=(0.0, 0.0))
def linear_spline(x: Tensor, p: Any, call: Call) -> Tensor:
    parts = [hinge(b * x + c) for b, c in zip(p.b.unbind(-1), p.c.unbind(-1), strict=True)]
    return combined(p.a, parts)


@builds("deep spline", fixed=("t",), b0=0.0, b1=0.0, a=(0.0,) * 4 + (1.0,) + (0.0,) * 4, t=tuple(range(-4, 5)))
def deep_spline(x: Tensor, p: Any, call: Call) -> Tensor:
    """Starts as ReLU."""
    return p.b0 + p.b1 * x + combined(p.a, [hinge(x - t) for t in p.t.unbind(-1)])


def _relu_line(bins_: int) -> tuple[list[float], list[float]]:
    """Inner borders of [-1, 1], and slopes that make ReLU of the bins."""
    borders = [-1 + 2 * j / (bins_ - 2) for j in range(bins_ - 1)]
    return borders, [0.0 if j <= (bins_ - 2) // 2 else 1.0 for j in range(bins_)]


BORDERS, SLOPES = _relu_line(20)


@builds("MTLU", fixed=("c",), a=SLOPES, b=(0.0,) * 20, c=BORDERS)
def mtlu(x: Tensor, p: Any, call: Call) -> Tensor:
    """a_k x + b_k on bin k; jumps are allowed."""
    index = bins(x, p.c)
    return at(p.a, index) * x + at(p.b, index)


@builds("TMAF-ReLU", fixed=("s",), t=SLOPES, s=BORDERS)
def tmaf(x: Tensor, p: Any, call: Call) -> Tensor:
    """A slope for each bin, times x; a border belongs to the bin below it."""
    index = torch.bucketize(x.detach().contiguous(), p.s, right=False)
    return at(p.t, index) * x


POINTS = 17
GRID = tuple(-3 + 6 * j / (POINTS - 1) for j in range(POINTS))


def _outside(x: Tensor, p: Any, left: Tensor, right: Tensor) -> Tensor:
    """The trainable end slopes beyond the grid."""
    low, high = (x - left).clamp(max=0), (x - right).clamp(min=0)
    return p.first * low + p.last * high


@builds("PWLU", values=[max(0.0, x) for x in GRID], first=0.0, last=1.0, l=-3.0, r=3.0)
def pwlu(x: Tensor, p: Any, call: Call) -> Tensor:
    inside = torch.minimum(torch.maximum(x, p.l), p.r)
    step = (p.r - p.l) / (p.values.shape[-1] - 1)
    return table_lookup(inside, p.values, p.l, step) + _outside(x, p, p.l, p.r)


@builds("N-PWLU", fixed=("l",), values=[max(0.0, x) for x in GRID], lengths=(6 / (POINTS - 1),) * (POINTS - 1),
        first=0.0, last=1.0, l=-3.0)  # fmt: skip
def n_pwlu(x: Tensor, p: Any, call: Call) -> Tensor:
    """Interval lengths are trained: point j is l plus the sum of the lengths before it (their absolute values)."""
    lengths = p.lengths.abs().clamp(min=1e-6)
    points = torch.cat([p.l[..., None], p.l[..., None] + lengths.cumsum(-1)], -1)
    index = (bins(x, points) - 1).clamp(0, lengths.shape[-1] - 1)
    inside = torch.minimum(torch.maximum(x, points[..., 0]), points[..., -1])
    share = (inside - at(points, index)) / at(lengths, index)
    between = at(p.values, index) * (1 - share) + at(p.values, index + 1) * share
    return between + _outside(x, p, points[..., 0], points[..., -1])


TABLE = tuple(max(0.0, -12 + 0.1 * j) for j in range(241))


@builds("LuTU", fixed=("start", "step"), b=TABLE, start=-12.0, step=0.1)
def lutu(x: Tensor, p: Any, call: Call) -> Tensor:
    """Starts as ReLU; the end pieces go on outside."""
    return table_lookup(x, p.b, p.start, p.step)


@builds("LuTU-cos", fixed=("start", "step", "t"), b=TABLE, start=-12.0, step=0.1, t=3.0)
def lutu_cos(x: Tensor, p: Any, call: Call) -> Tensor:
    """Raised cosines of half-width t steps, scaled by the step, so that t = 1 comes close to the table."""
    place, spread = (x - p.start) / p.step, int(p.t)
    middle = place.detach().round().long()
    count = p.b.shape[-1]

    def part(offset: int) -> Tensor:
        index = middle + offset
        distance = place - index
        bump = (1 + torch.cos(math.pi * distance / spread)) / (2 * spread)
        inside = (distance.abs() <= spread) & (index >= 0) & (index < count)
        return torch.where(inside, bump * at(p.b, index.clamp(0, count - 1)), 0.0)

    return total(part(offset) for offset in range(-spread, spread + 1))
