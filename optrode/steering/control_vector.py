"""The PCA control vector of representation engineering (arXiv 2310.01405, section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..parts.directions import principal_direction
from .protocol import DirectionMethod


@dataclass(frozen=True)
class ControlVector(DirectionMethod):
    """First principal component of paired differences, at unit length, added at every position.

    form: `random_sign`, the paper's; `pair_centred` and `centred_difference` are what public code does instead, see
        `parts.directions.principal_direction`.
    """

    id: ClassVar[str] = "control-vector"
    title: ClassVar[str] = "control vector (PCA)"
    paper: ClassVar[str] = "2310.01405"

    positions: str = "all"
    form: str = "random_sign"
    seed: int = 0

    def direction(self, positive: Tensor, negative: Tensor) -> Tensor:
        return principal_direction(positive, negative, form=self.form, seed=self.seed)
