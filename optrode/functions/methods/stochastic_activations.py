"""SiLU and ReLU in turn, by chance or by schedule (Stochastic activations, arXiv 2509.22358)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ...errors import BadInput, did_you_mean
from .protocol import ActivationMethod

POSITIVES = ("common", "by choice")
PER = ("element", "token", "layer")


@dataclass(frozen=True)
class StochasticActivation(ActivationMethod):
    """SiLU with probability p, ReLU otherwise, in training; ReLU for the last share of the steps, and in use.

    p: probability of SiLU; 1 with `finish` is SiLU that ends in ReLU (Swi+FT), 0 is ReLU throughout. finish: share of
    steps at the end that train with ReLU (paper: 0.05, 0.1 or 0.2); the learning rate goes on as it was. positive: what
    x >= 0 gives: `common`, x (the paper's figure), or `by choice`, SiLU's or ReLU's value with the choice. per: one
    choice for each `element` (ours), `token` or `layer`. seed: of the choices, so that a run draws the same again.

    `sampling(network, seed)` draws in use too, for diverse answers.
    """

    id: ClassVar[str] = "stochastic-activations"
    title: ClassVar[str] = "StochA"
    paper: ClassVar[str] = "2509.22358"

    p: float = 0.7
    finish: float = 0.05
    positive: str = "common"
    per: str = "element"
    seed: int = 0

    @property
    def label(self) -> str:
        return f"Swi+FT {self.finish:g}" if self.p == 1 else f"StochA {self.p:g}, finish {self.finish:g}"

    def module(self, width: int, *, axis: int = -1) -> nn.Module:
        if not 0 <= self.p <= 1 or not 0 <= self.finish <= 1:
            raise BadInput(f"p {self.p:g} and finish {self.finish:g}: both are shares between 0 and 1")
        for value, known in ((self.positive, POSITIVES), (self.per, PER)):
            if value not in known:
                raise BadInput(f"'{value}' is none of them: {did_you_mean(value, known)}")
        return SiLUOrReLU(self.p, self.positive, self.per, self.seed)

    def before_step(self, network: nn.Module, step: int, steps: int) -> None:
        chance = 0.0 if step >= round((1 - self.finish) * steps) else self.p
        for part in network.modules():
            if isinstance(part, SiLUOrReLU):
                part.p = chance


class SiLUOrReLU(nn.Module):
    """One layer of it. In evaluation ReLU, unless `sampled`."""

    def __init__(self, p: float, positive: str = "common", per: str = "element", seed: int = 0):
        super().__init__()
        self.p, self.positive, self.per, self.seed = p, positive, per, seed
        self.sampled = False
        self._generator: torch.Generator | None = None

    def replay(self, seed: int | None = None) -> None:
        """Start the choices anew."""
        self.seed = self.seed if seed is None else seed
        self._generator = None

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training or self.sampled) or self.p == 0:
            return torch.relu(x)
        smooth = nn.functional.silu(x)
        if self.p < 1:
            smooth = torch.where(self._choice(x), smooth, torch.relu(x))
        return torch.where(x >= 0, x, smooth) if self.positive == "common" and self.p < 1 else smooth

    def _choice(self, x: Tensor) -> Tensor:
        if self._generator is None:
            self._generator = torch.Generator(x.device).manual_seed(self.seed)
        shape = {"element": x.shape, "token": (*x.shape[:-1], 1), "layer": (1,)}[self.per]
        return torch.rand(shape, generator=self._generator, device=x.device) < self.p

    def __deepcopy__(self, memo: object) -> SiLUOrReLU:
        copy = SiLUOrReLU(self.p, self.positive, self.per, self.seed).train(self.training)
        copy.sampled = self.sampled
        return copy

    def extra_repr(self) -> str:
        return f"p={self.p:g}, positive={self.positive!r}, per={self.per!r}"


def sampling(network: nn.Module, p: float, seed: int = 0) -> nn.Module:
    """Let a trained network choose in use, with its own draws for each layer; p = 0 turns it off again."""
    for number, part in enumerate(part for part in network.modules() if isinstance(part, SiLUOrReLU)):
        part.p, part.sampled = p, p > 0
        part.replay(seed + 1000 * number)
    return network
