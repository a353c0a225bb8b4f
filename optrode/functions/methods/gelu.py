"""GELU (Gaussian Error Linear Units, arXiv 1606.08415)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ...errors import BadInput, did_you_mean
from ..of_formula import from_formula
from ..zoo import get
from .protocol import ActivationMethod

FORMS = {"exact": "gelu", "tanh": "gelu-tanh", "sigmoid": "gelu-sigmoid", "stochastic": ""}


@dataclass(frozen=True)
class GELU(ActivationMethod):
    """x Phi((x - mu) / sigma): the mean of x times a Bernoulli mask that is open with that probability.

    form: `exact`; `tanh` (0.044715, what the paper's code ran; at most 4.7e-4 off); `sigmoid` (slope 1.702, at most
    0.0203 off); `stochastic` draws the mask in training and takes its mean otherwise (the paper's SOI map). Weights
    of a checkpoint belong to one form. mu, sigma: of the gate, exact form only. seed: of the masks.

    >>> GELU(form="tanh").module(4)
    Activation(GELU-tanh, per='layer')
    """

    id: ClassVar[str] = "gelu"
    title: ClassVar[str] = "GELU"
    paper: ClassVar[str] = "1606.08415"

    form: str = "exact"
    mu: float = 0.0
    sigma: float = 1.0
    seed: int = 0

    @property
    def label(self) -> str:
        return self.title if self.form == "exact" else f"{self.title} ({self.form})"

    def module(self, width: int, *, axis: int = -1) -> nn.Module:
        if self.form not in FORMS:
            raise BadInput(f"form '{self.form}' is none: {did_you_mean(self.form, FORMS)}")
        if self.sigma <= 0:
            raise BadInput(f"sigma is {self.sigma:g}: the gate's deviation is positive")
        if self.form == "stochastic":
            return StochasticIdentity(self.seed)
        if (self.mu, self.sigma) == (0.0, 1.0):
            return get(FORMS[self.form]).module(axis=axis)
        if self.form != "exact":
            raise BadInput("mu and sigma belong to the exact form")
        gate = from_formula("x*Phi((x-m)/s)", parameters={"m": self.mu, "s": self.sigma}, name="GELU, general")
        return gate.module(axis=axis, trainable=False)


class StochasticIdentity(nn.Module):
    """x times a mask that is 1 with probability Phi(x); its mean, x Phi(x), in evaluation."""

    def __init__(self, seed: int = 0):
        super().__init__()
        self.seed = seed
        self._generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return nn.functional.gelu(x)
        if self._generator is None:
            self._generator = torch.Generator(x.device).manual_seed(self.seed)
        chance = torch.special.ndtr(x.detach().float())
        drawn = torch.rand(x.shape, generator=self._generator, device=x.device)
        return x * (drawn < chance)

    def __deepcopy__(self, memo: object) -> StochasticIdentity:
        return StochasticIdentity(self.seed).train(self.training)
