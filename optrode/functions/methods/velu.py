"""VeLU (Variance-enhanced Learning Unit, arXiv 2504.15051)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ...errors import BadInput, did_you_mean
from .protocol import ActivationMethod

SECONDS = ("arcsin", "sin")
_EDGE = 1 - 1e-6
_MOMENTUM = 0.1


@dataclass(frozen=True)
class VeLU(ActivationMethod):
    """lambda x g(x) s, with the gate g = sigmoid(alpha (arctan(beta1 x) + arcsin(beta2 x))) and the gain
    s = 1 + gamma tanh(mu sd), sd the deviation of the layer's input, clamped to [0.5, 2].

    sd is that of the batch in training and its running mean otherwise. `detached` leaves it out of the gradient. The
    penalty `transport` x W2^2 pulls the input to N(0, 1), with W2^2 = mean^2 + (sd - 1)^2 for inputs that are nearly
    Gaussian; the paper subtracts it inside the function, which would move all outputs, so here it is a term of the
    loss. lambda is trained from 1. second: `arcsin` (the formula) or `sin` (the first version's name for it); arcsin's
    argument is clamped to (-1, 1). The paper's defaults for alpha ... mu are not known: those here are ours.
    """

    id: ClassVar[str] = "velu"
    title: ClassVar[str] = "VeLU"
    paper: ClassVar[str] = "2504.15051"

    alpha: float = 1.0
    beta1: float = 1.0
    beta2: float = 0.5
    gamma: float = 0.5
    mu: float = 1.0
    transport: float = 1e-4
    second: str = "arcsin"
    detached: bool = False

    @property
    def label(self) -> str:
        return self.title if self.transport else f"{self.title} without penalty"

    def module(self, width: int, *, axis: int = -1) -> nn.Module:
        if self.second not in SECONDS:
            raise BadInput(f"second is '{self.second}': {did_you_mean(self.second, SECONDS)}")
        return VarianceGate(self)

    def penalty(self, network: nn.Module) -> Tensor | None:
        if not self.transport:
            return None
        found = [part.distance for part in network.modules() if isinstance(part, VarianceGate)]
        return self.transport * sum((one for one in found if one is not None), torch.zeros(()))


class VarianceGate(nn.Module):
    """One layer of it. `distance`: W2^2 of the last input from N(0, 1), with its graph."""

    running: Tensor

    def __init__(self, method: VeLU):
        super().__init__()
        self.method = method
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("running", torch.ones(()))
        self.distance: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        m = self.method
        deviation = torch.sqrt(x.var(unbiased=False) + 1e-12) if self.training else self.running
        if self.training:
            self.running.lerp_(deviation.detach(), _MOMENTUM)
            self.distance = x.mean().square() + (deviation - 1).square()
        if m.detached:
            deviation = deviation.detach()
        second = torch.asin((m.beta2 * x).clamp(-_EDGE, _EDGE)) if m.second == "arcsin" else torch.sin(m.beta2 * x)
        gate = torch.sigmoid(m.alpha * (torch.atan(m.beta1 * x) + second))
        gain = (1 + m.gamma * torch.tanh(m.mu * deviation)).clamp(0.5, 2.0)
        return self.scale * x * gate * gain

    def extra_repr(self) -> str:
        return self.method.label


def transport_distance(x: Tensor) -> Tensor:
    """The squared Wasserstein-2 distance of a sample from N(0, 1), by sorting; any shape, at least one number.

    >>> float(transport_distance(torch.zeros(1)))
    0.0
    """
    ordered = x.flatten().sort().values
    count = ordered.numel()
    levels = (torch.arange(count, dtype=torch.float64, device=x.device) + 0.5) / count
    wanted = math.sqrt(2) * torch.erfinv(2 * levels - 1)
    return (ordered - wanted.to(ordered.dtype)).square().mean()
