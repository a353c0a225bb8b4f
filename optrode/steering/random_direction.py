"""A random direction of matched norm: what searching layers and strengths finds when there is nothing to find."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..parts.directions import random_direction
from .protocol import DirectionMethod


@dataclass(frozen=True)
class RandomDirection(DirectionMethod):
    """A unit vector drawn evenly from the sphere; the data only tells the norm of the stream."""

    id: ClassVar[str] = "random-direction"
    title: ClassVar[str] = "random direction"
    role: ClassVar[str] = "control"

    seed: int = 0

    def direction(self, positive: Tensor, negative: Tensor) -> Tensor:
        return random_direction(positive.shape[-1], self.seed).to(positive.device)
