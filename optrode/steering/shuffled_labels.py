"""Shuffled labels: the mean difference after the sides of random pairs were swapped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..parts.directions import mean_difference
from .protocol import DirectionMethod


@dataclass(frozen=True)
class ShuffledLabels(DirectionMethod):
    """A control between a random direction and the real one: made of the same activations, but of none of the labels.

    Exactly half of the pairs are swapped (one more or less where their number is odd).
    """

    id: ClassVar[str] = "shuffled-labels"
    title: ClassVar[str] = "shuffled labels"
    role: ClassVar[str] = "control"

    seed: int = 0

    def direction(self, positive: Tensor, negative: Tensor) -> Tensor:
        count = len(positive)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(self.seed)).to(positive.device)
        swapped = (order < count // 2)[:, None]
        return mean_difference(torch.where(swapped, negative, positive), torch.where(swapped, positive, negative))
