"""The weight of a linear probe as a steering direction: the baseline that separates best and need not steer best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..parts.directions import logistic_direction
from .protocol import DirectionMethod


@dataclass(frozen=True)
class ProbeDirection(DirectionMethod):
    """Logistic-regression weight between both sides of the pairs, added after the user's turn.

    penalty: inverse of scikit-learn's C, on standardised activations.
    """

    id: ClassVar[str] = "probe-direction"
    title: ClassVar[str] = "probe direction"

    penalty: float = 1.0

    def direction(self, positive: Tensor, negative: Tensor) -> Tensor:
        return logistic_direction(positive, negative, penalty=self.penalty)
