"""Adaptive parametric activation (APA and AGLU, arXiv 2407.08567)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import BadInput, did_you_mean
from .protocol import ActivationMethod

FORMS = ("gate", "unit")
GRADIENTS = ("true", "truncated")
_LEAST = 1e-4


@dataclass(frozen=True)
class APA(ActivationMethod):
    """The gate (lambda exp(-kappa z) + 1)^(-1/lambda), or z times it (AGLU); lambda and kappa trained.

    form: `gate` for attention gates such as squeeze-and-excitation, where lambda and kappa start uniform in [0, 1];
    `unit` for hidden layers, where kappa starts in [0.8, 1.2]. per: a pair for a `layer` or for each `channel`. lambda
    is kept positive as in the authors' code: at least 1e-4 in the gate, ReLU plus 1e-8 in the unit. gradient: `true` or
    `truncated`, the hand-written backward of the authors' unit, which leaves out a part of the derivative by lambda.
    start: fixed values for (lambda, kappa) in place of random ones, which come from torch's generator.

    lambda 1 is the sigmoid, lambda to 0 Gumbel's distribution function; the unit at (1, 1) is SiLU.
    """

    id: ClassVar[str] = "apa"
    title: ClassVar[str] = "APA"
    paper: ClassVar[str] = "2407.08567"

    form: str = "unit"
    per: str = "layer"
    gradient: str = "true"
    start: tuple[float, float] | None = None

    @property
    def label(self) -> str:
        name = "APA gate" if self.form == "gate" else "AGLU"
        return name if self.gradient == "true" else f"{name}, truncated gradient"

    def module(self, width: int, *, axis: int = -1) -> nn.Module:
        for value, known in ((self.form, FORMS), (self.gradient, GRADIENTS), (self.per, ("layer", "channel"))):
            if value not in known:
                raise BadInput(f"'{value}' is none of them: {did_you_mean(value, known)}")
        return ParametricGate(self, width if self.per == "channel" else 1, axis)


class ParametricGate(nn.Module):
    """One layer of it."""

    def __init__(self, method: APA, count: int, axis: int):
        super().__init__()
        self.method, self.axis, self.count = method, axis, count
        if method.start is not None:
            lambda_, kappa = (torch.full((count,), value) for value in method.start)
        else:
            lambda_, kappa = torch.rand(count), torch.rand(count)
            kappa = kappa if method.form == "gate" else 0.8 + 0.4 * kappa
        self.lambda_, self.kappa = nn.Parameter(lambda_), nn.Parameter(kappa)

    def forward(self, z: Tensor) -> Tensor:
        unit = self.method.form == "unit"
        positive = F.relu(self.lambda_) + 1e-8 if unit else self.lambda_.clamp(min=_LEAST)
        given = self._spread(positive, z), self._spread(self.kappa, z)
        p = _Truncated.apply(z, *given) if self.method.gradient == "truncated" else gate(z, *given)
        return z * p if unit else p

    def _spread(self, value: Tensor, z: Tensor) -> Tensor:
        shape = [1] * z.dim()
        shape[self.axis] = self.count
        return value.reshape(shape)

    def extra_repr(self) -> str:
        return f"{self.method.label}, per={self.method.per!r}"


def gate(z: Tensor, lambda_: Tensor, kappa: Tensor) -> Tensor:
    """exp(-ln(1 + lambda e^(-kappa z)) / lambda), without overflow: the logarithm is softplus(ln lambda - kappa z)."""
    return torch.exp(-F.softplus(torch.log(lambda_) - kappa * z) / lambda_)


class _Truncated(torch.autograd.Function):
    """The gate with dp/dlambda = -p / (lambda (lambda + e^(kappa z))), its other part left out."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, lambda_: Tensor, kappa: Tensor) -> Tensor:
        p = gate(z, lambda_, kappa)
        ctx.save_for_backward(z, lambda_, kappa, p)
        return p

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        z, lambda_, kappa, p = ctx.saved_tensors
        # p / (lambda + e^(kappa z)) without overflow.
        share = p * torch.sigmoid(torch.log(lambda_) - kappa * z) / lambda_
        parts = (kappa * share, -share / lambda_, z * share)
        sizes = (z, lambda_, kappa)
        dz, dl, dk = ((grad * part).sum_to_size(one.shape) for part, one in zip(parts, sizes, strict=True))
        return dz, dl, dk
