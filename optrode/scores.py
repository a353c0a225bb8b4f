"""Scores: numbers computed from activations, per token, example or dataset.

A score is differentiable where it can be, so that it can also be a training penalty. One sign convention: a higher
score means more of what the score is named after.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from .activations import Activations

if TYPE_CHECKING:
    from .model import Model


@runtime_checkable
class Score(Protocol):
    """What every score offers: the sites it needs, and a function of their activations."""

    @property
    def sites(self) -> tuple[str, ...]:
        """Addresses that must be read."""

    def __call__(self, activations: Activations) -> Tensor:
        """The score; [example], [position] or scalar."""


@dataclass(frozen=True, eq=False)
class LinearScore:
    """weight . h + bias at one site: a linear probe as a score, in units of log-odds.

    `weight`: [width] float32; `positions`: where it was fitted and reads. `.probability` gives sigmoid of the score.
    """

    site: str
    weight: Tensor
    bias: float
    positions: str = "last_prompt"

    @property
    def sites(self) -> tuple[str, ...]:
        return (self.site,)

    def __call__(self, activations: Activations) -> Tensor:
        h = activations[self.site]
        weight = self.weight.to(h.device, torch.promote_types(h.dtype, torch.float32))
        return h.to(weight.dtype) @ weight + self.bias

    def probability(self, activations: Activations) -> Tensor:
        """Probability of the positive class, same shape as the score."""
        return torch.sigmoid(self(activations))


def score(model: Model, score: Score, inputs: Any, **options: Any) -> Tensor:
    """Read what a score needs, at its own positions, and compute it."""
    positions = getattr(score, "positions", None)
    sites: Sequence[str] = score.sites
    return score(model.read(inputs, sites, positions=positions, **options))
