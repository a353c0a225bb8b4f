"""Integrals of a function over normal inputs, of which the theory of wide random networks is made.

Gauss-Legendre quadrature on short pieces, whose borders lie where the formula has a kink or a jump, and ever closer
together around 0, so that wide inputs see what happens there.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
from torch import Tensor

from ..errors import BadInput
from .expression import CONDITIONS, Call, Expression, call, nodes, number, subtract
from .of_formula import FormulaFunction
from .program import program
from .protocol import Function
from .zoo import get

END = 12.0


def curve_of(function: str | Function) -> FormulaFunction:
    """An elementwise function by name or as it is. Raises `BadInput` for functions that mix elements."""
    found = get(function) if isinstance(function, str) else function
    if not isinstance(found, FormulaFunction):
        raise BadInput(f"{found.name} mixes elements, so its layers are no function of variance and correlation")
    return found


def second_moment(f: FormulaFunction, variance: float, order: int = 0) -> float:
    """E[g(h)^2], h normal of that variance, g the function (order 0) or its first or second derivative.

    A jump of the derivative counts for nothing in the second one: see `slope_jumps`.
    """
    deviation = math.sqrt(max(variance, 0.0))
    operation = f.operation
    for _ in range(order):
        operation = operation.by(0)
    z, w = _rule(tuple(one / deviation for one in kinks(f)) if deviation else ())
    values = operation(deviation * z, list(f.initial().values()))
    return float((w * values.square()).sum())


def mean(f: FormulaFunction, variance: float) -> float:
    """E[f(h)], h normal of that variance."""
    deviation = math.sqrt(max(variance, 0.0))
    z, w = _rule(tuple(one / deviation for one in kinks(f)) if deviation else ())
    return float((w * f(deviation * z)).sum())


def product_moment(f: FormulaFunction, variance: float, correlation: float) -> float:
    """E[f(g) f(h)], g and h normal of one variance and of that correlation."""
    deviation, c = math.sqrt(max(variance, 0.0)), correlation
    s = math.sqrt(max(0.0, 1 - c * c))
    broken = torch.tensor([one / deviation for one in kinks(f)] if deviation else [], dtype=torch.float64)
    # Outside, what the inner integral makes of a kink is a step as wide as s.
    steps = [sign * s * 2.0**power for power in range(12) for sign in (-1, 0, 1) if s * 2.0**power < 2]
    seen = [one / c + step for one in broken.tolist() for step in steps] if abs(c) > 0.1 else []
    z, w = _rule((*broken.tolist(), *seen), 12, graded=False)
    # Inside, borders of its own for each outer point: where c z + s v meets a kink.
    own = ((broken - c * z[:, None]) / s).clamp(-END, END) if s else z.new_zeros(len(z), 0)
    borders = torch.cat([_borders(False).expand(len(z), -1), own], 1).sort(1).values
    v, inner = _on_pieces(borders, 12)
    return float((w * f(deviation * z) * (inner * f(deviation * (c * z[:, None] + s * v))).sum(1)).sum())


def _rule(broken: tuple[float, ...], points: int = 80, graded: bool = True) -> tuple[Tensor, Tensor]:
    """Nodes and weights of E[.] under a standard normal, with borders at `broken` too."""
    inside = [one for one in broken if abs(one) < END]
    borders = torch.cat([_borders(graded), torch.tensor(inside, dtype=torch.float64)]).sort().values
    z, w = _on_pieces(borders[None], points)
    return z[0], w[0]


@cache
def _borders(graded: bool) -> Tensor:
    fine = [sign * 2.0**-power for power in range(1, 12) for sign in (-1, 1)] if graded else []
    return torch.cat([torch.linspace(-END, END, 17, dtype=torch.float64), torch.tensor(fine, dtype=torch.float64)])


def _on_pieces(borders: Tensor, points: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights between the sorted `borders` [row, border], both [row, node]."""
    nodes, weights = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(points))
    middle, half = (borders[:, 1:] + borders[:, :-1]) / 2, (borders[:, 1:] - borders[:, :-1]) / 2
    z = (middle[..., None] + half[..., None] * nodes).flatten(1)
    w = (half[..., None] * weights).flatten(1) * torch.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    return z, w


# Kinks ---------------------------------------------------------------------------------------------------------------


@cache
def kinks(f: FormulaFunction) -> tuple[float, ...]:
    """Inputs in [-50, 50] where the formula changes from one piece to another, at the defaults."""
    x = torch.linspace(-50, 50, 4001, dtype=torch.float64)
    found: set[float] = set()
    with torch.no_grad():
        for border in _changes(f.operation.forward.expression):
            found.update(round(zero, 12) + 0.0 for zero in _zeros(f, border, x))
    return tuple(sorted(found))


def slope_jumps(f: FormulaFunction) -> dict[float, float]:
    """Kinks where the derivative jumps, and by how much."""
    found = {}
    for kink in kinks(f):
        gap = 1e-9 * max(1.0, abs(kink))
        below, above = f.derivative(torch.tensor([kink - gap, kink + gap], dtype=torch.float64)).tolist()
        if abs(above - below) > 1e-6:
            found[kink] = above - below
    return found


def jumps(f: FormulaFunction) -> tuple[float, ...]:
    """Kinks where the function itself jumps."""
    gaps = [1e-9 * max(1.0, abs(kink)) for kink in kinks(f)]
    ends = [f(torch.tensor([k - gap, k + gap], dtype=torch.float64)) for k, gap in zip(kinks(f), gaps, strict=True)]
    return tuple(kink for kink, pair in zip(kinks(f), ends, strict=True) if float(pair.diff().abs()) > 1e-6)


def _changes(expression: Expression) -> list[Expression]:
    """What is 0 where the expression goes over from one piece to another."""
    found: list[Expression] = []
    for node in nodes(expression):
        if not isinstance(node, Call):
            continue
        if node.operation in ("max", "min", *CONDITIONS[:3]):
            found.append(subtract(*node.arguments))
        elif node.operation in ("abs", "sgn", "relu", "relu6", "elu"):
            found.append(node.arguments[0])
        if node.operation == "relu6":
            found.append(call("add", node.arguments[0], number(-6.0)))
    return found


def _zeros(f: FormulaFunction, border: Expression, x: Tensor) -> list[float]:
    """Where the border is 0, on the grid or between two of its points."""
    run = program(border, tuple(f.defaults))
    values = list(f.initial().values())
    y = run(x, values)
    between = (y[1:] * y[:-1] < 0).nonzero().flatten()
    low, high = x[between], x[between + 1]
    sign = y[between].sign()
    for _ in range(60):
        middle = (low + high) / 2
        same = run(middle, values).sign() == sign
        low, high = torch.where(same, middle, low), torch.where(same, high, middle)
    # A border that is 0 on a whole stretch, as that of a parameter might be, is none.
    exact = x[y == 0] if int((y == 0).sum()) < 10 else x[:0]
    return [*exact.tolist(), *((low + high) / 2).tolist()]
