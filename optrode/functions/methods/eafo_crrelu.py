"""CRReLU, and the recipe it comes from: corrections that lower the entropy of outputs (EAFO, arXiv 2405.12954)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..module import Activation
from ..zoo import get
from .protocol import ActivationMethod, parameters_of

Curve = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class CRReLU(ActivationMethod):
    """max(0, x) + eps x exp(-x^2 / 2), eps trained for each layer from 0.01 and left alone by weight decay.

    trainable: False keeps eps as it is. For eps > 0 its minimum is -eps exp(-1/2), at x = -1.
    """

    id: ClassVar[str] = "eafo-crrelu"
    title: ClassVar[str] = "CRReLU"
    paper: ClassVar[str] = "2405.12954"

    eps: float = 0.01
    trainable: bool = True

    @property
    def label(self) -> str:
        return self.title if self.trainable else f"{self.title} frozen"

    def module(self, width: int, *, axis: int = -1) -> nn.Module:
        return get("crrelu").module(axis=axis, parameters={"e": self.eps}, trainable=self.trainable)

    def without_decay(self, network: nn.Module) -> Iterable[nn.Parameter]:
        return parameters_of(network, Activation)


def entropy_correction(inverse: Curve, density: Curve, outputs: Tensor) -> Tensor:
    """The change of an activation's inverse y(t) that lowers the entropy of its outputs fastest, at `outputs` t.

    `inverse` is y, `density` that of the inputs. With the outputs' density q = p(y) y', the first variation of their
    entropy along y + eta is the integral of p(y) (ln q)' eta, so that the steepest descent is -p(y) (ln q)', which is
    -(p'(y) y' + p(y) y'' / y') (our own derivation; the paper gives the argument). Any shape; float64 is advised.

    For ReLU's linear half and a normal density it is x times the density, the correction that CRReLU trains:

    >>> x = torch.tensor([0.5, 1.0], dtype=torch.float64)
    >>> normal = lambda x: torch.exp(-x * x / 2)
    >>> bool(torch.allclose(entropy_correction(lambda t: t * 1, normal, x), x * normal(x)))
    True
    """
    t = outputs.detach().clone().requires_grad_(True)
    y = inverse(t)
    slope = _derivative(y, t)
    logarithm = torch.log(density(y)) + torch.log(slope)
    return (-density(y) * _derivative(logarithm, t)).detach()


def _derivative(value: Tensor, by: Tensor) -> Tensor:
    if not value.requires_grad:
        return torch.zeros_like(by)
    (found,) = torch.autograd.grad(value.sum(), by, create_graph=True, allow_unused=True)
    return torch.zeros_like(by) if found is None else found


def worst_activation(density: Curve, low: float, high: float, *, ends: tuple[float, float] = (0.0, 1.0)) -> Curve:
    """The activation whose outputs have the largest entropy between two ends: the inputs' distribution function,
    scaled. Inputs below `low` and above `high` count as those. By the trapezoidal rule on 20001 points."""
    x = torch.linspace(low, high, 20001, dtype=torch.float64)
    mass = torch.cumulative_trapezoid(density(x), x)
    table = torch.cat([mass.new_zeros(1), mass]) / mass[-1]

    def activation(value: Tensor) -> Tensor:
        place = ((value.double().clamp(low, high) - low) / (high - low) * 20000).clamp(0, 20000 - 1e-9)
        left = place.floor().long()
        share = place - left
        found = table[left] * (1 - share) + table[left + 1] * share
        return ends[0] + (ends[1] - ends[0]) * found

    return activation
