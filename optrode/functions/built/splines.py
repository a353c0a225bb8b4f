"""Piecewise polynomials between trainable points."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .primitives import at, combined, polynomial, total
from .registry import Call, builds

STEP, COUNT = 0.2, 41
KNOTS = [float(torch.tanh(torch.tensor(STEP * (j - COUNT // 2), dtype=torch.float64))) for j in range(COUNT)]
CATMULL_ROM = ((-0.5, 1.0, -0.5, 0.0), (1.5, -2.5, 0.0, 1.0), (-1.5, 2.0, 0.5, 0.0), (0.5, -0.5, 0.0, 0.0))


@builds("SAF", fixed=("dx",), q=KNOTS, dx=STEP)
def saf(x: Tensor, p: Any, call: Call) -> Tensor:
    """Catmull-Rom through knots that start as tanh; outside, the curve goes on from its last span."""
    count = p.q.shape[-1]
    place = x / p.dx + count // 2
    span = place.detach().floor().clamp(1, count - 3)
    u, span = place - span, span.long()
    return total(
        at(p.q, span + j - 1) * polynomial(u, torch.tensor(row[::-1], dtype=x.dtype, device=x.device))
        for j, row in enumerate(CATMULL_ROM)
    )


@builds("PPAF", q=tuple(-2 + 4 * (j + 0.5) / 8 for j in range(8)))
def ppaf(x: Tensor, p: Any, call: Call) -> Tensor:
    """Order 1: it rises from 0 to 1 and has the value (k + 1/2)/m at the k-th of its m points, linear between."""
    q = p.q.sort(-1).values
    count = q.shape[-1]
    rise = torch.diff(q, dim=-1).clamp(min=1e-6)
    parts = [((x - q[..., k]) / rise[..., k]).clamp(0, 1) for k in range(count - 1)]
    return (0.5 + total(parts)) / count


@builds("SAAF", fixed=("t",), v=(0.0, 0.0), w=(0.0,) * 4 + (1.0,) * 4, t=tuple(float(j) for j in range(-4, 5)))
def saaf(x: Tensor, p: Any, call: Call) -> Tensor:
    """Degree 1: a line plus slopes w_k on the intervals of t; starts as ReLU on [-4, 4]. Beyond, the line alone."""
    borders = p.t.unbind(-1)
    zero = torch.zeros_like(x)
    parts = [
        # The integral of the k-th interval's indicator from 0 to x.
        torch.minimum(torch.maximum(x, low), high) - torch.minimum(torch.maximum(zero, low), high)
        for low, high in pairwise(borders)
    ]
    return polynomial(x, p.v) + combined(p.w, parts)


def b_splines(x: Tensor, knots: Tensor, order: int) -> list[Tensor]:
    """Values of all B-splines of an order over rising knots, by the Cox-de Boor recursion."""
    t = knots.unbind(-1)
    found = [((x >= low) & (x < high)).to(x.dtype) for low, high in pairwise(t)]
    for k in range(1, order + 1):
        found = [
            (x - t[j]) / (t[j + k] - t[j]) * found[j] + (t[j + k + 1] - x) / (t[j + k + 1] - t[j + 1]) * found[j + 1]
            for j in range(len(found) - 1)
        ]
    return found


@builds("B-spline basis", fixed=("t",), wb=1.0, ws=1.0, c=(0.0,) * 8, t=tuple(-1 + 0.4 * j for j in range(-3, 9)))
def kan(x: Tensor, p: Any, call: Call) -> Tensor:
    """Cubic B-splines on a grid of 5 intervals over [-1, 1], beside a SiLU."""
    return p.wb * F.silu(x) + p.ws * combined(p.c, b_splines(x, p.t, 3))
