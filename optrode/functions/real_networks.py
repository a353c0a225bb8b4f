"""What real random networks do with variance, correlation and slope, beside what the theory says of wide ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..engine.progress import track
from ..errors import BadInput
from .gains import Signal, maps
from .moments import curve_of
from .of_formula import FormulaFunction
from .protocol import Function

if TYPE_CHECKING:
    import altair

# Small differences that are followed through each network; more of them make the slope less noisy.
TANGENTS = 8


@dataclass(frozen=True)
class Measured:
    """What `measured` gives, one entry for each layer, the input's first.

    mean: over the networks. error: the standard errors of those means. theory: what `maps` says.
    """

    mean: Signal
    error: Signal
    theory: Signal
    width: int
    networks: int

    def within(self, errors: float = 4.0) -> bool:
        """Whether variance and correlation of every layer lie so many standard errors from the theory or nearer.

        Errors out of few networks are themselves uncertain: of twenty layers, one may lie farther off by chance.
        """
        return all(
            abs(got - said) <= errors * error + 1e-6 * abs(said)
            for name in ("variance", "correlation")
            for got, said, error in zip(*(getattr(one, name) for one in self._three), strict=True)
        )

    @property
    def _three(self) -> tuple[Signal, Signal, Signal]:
        return self.mean, self.theory, self.error

    def plot(self) -> altair.Chart:
        """The theory as lines, the networks as dots with two standard errors to either side."""
        from .maps_chart import plot

        return plot(self.theory, self)


def measured(
    function: str | Function,
    depth: int,
    *,
    weight_variance: float = 1.0,
    bias_variance: float = 0.0,
    variance: float = 1.0,
    correlation: float = 0.5,
    width: int = 512,
    networks: int = 8,
    seed: int = 0,
) -> Measured:
    """Variance, correlation and slope by layer in `networks` random ones of `width` neurons, settings as in `maps`.

    Two inputs with exactly this variance and correlation go through each network. The slope is how much the square of
    a small difference grows from one layer to the next. Raises `BadInput` for functions that mix elements, fewer than
    two networks, or no layer. Cost: networks * depth products of a width x width matrix.
    """
    f = curve_of(function)
    if depth < 1 or networks < 2 or width < 2:
        raise BadInput(f"depth {depth}, {networks} networks, width {width}: at least 1, 2 and 2 are needed")
    theory = maps(
        f, depth, weight_variance=weight_variance, bias_variance=bias_variance, variance=variance,
        correlation=correlation,
    )  # fmt: skip
    found = []
    for number in track(list(range(networks)), "random networks"):
        draw = torch.Generator().manual_seed(seed * 7919 + number)
        h = math.sqrt(variance) * _two(width, correlation, draw)
        found.append(_through(f, h, depth, math.sqrt(weight_variance), math.sqrt(bias_variance), draw))
    values = torch.stack(found).double()
    mean, error = values.mean(0), values.std(0) / math.sqrt(networks)
    return Measured(_signal(mean), _signal(error), theory, width, networks)


def _two(width: int, correlation: float, draw: torch.Generator) -> Tensor:
    """Two vectors of mean square 1 with that correlation, [2, width]."""
    u, v = (math.sqrt(width) * torch.linalg.qr(torch.randn(width, 2, generator=draw)).Q).mT
    return torch.stack([u, correlation * u + math.sqrt(max(0.0, 1 - correlation**2)) * v])


@torch.no_grad()
def _through(f: FormulaFunction, h: Tensor, depth: int, gain: float, bias: float, draw: torch.Generator) -> Tensor:
    """Variance, correlation and slope by layer, [3, layer]."""
    width, lines = h.shape[1], []
    tangents = torch.randn(TANGENTS, width, generator=draw)
    for _ in range(depth + 1):
        square = h.square().mean(1)
        weight = torch.randn(width, width, generator=draw) * (gain / math.sqrt(width))
        tangents = tangents / tangents.square().mean(1, keepdim=True).sqrt()
        grown = (f.derivative(h[0]) * tangents) @ weight.mT
        lines.append(
            (float(square[0]), float((h[0] * h[1]).mean() / square.prod().sqrt()), float(grown.square().mean()))
        )
        h, tangents = f(h) @ weight.mT + bias * torch.randn(width, generator=draw), grown
    return torch.tensor(lines).T


def _signal(values: Tensor) -> Signal:
    return Signal(*(tuple(row.tolist()) for row in values))
