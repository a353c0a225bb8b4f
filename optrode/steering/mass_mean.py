"""The mass-mean direction (The Geometry of Truth, arXiv 2310.06824, section 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import BadInput, did_you_mean
from ..parts.directions import mean_difference
from .protocol import DirectionMethod, SteeringMethod

FORMS = ("mean", "whitened")


@dataclass(frozen=True)
class MassMean(DirectionMethod):
    """Difference of the class means, as it is or as a probe reads it: after the covariance within classes is undone.

    form: `mean`, theta = mean(positive) - mean(negative), which the paper adds to the stream; on the same pairs it is
        the direction of CAA (replies). `whitened`, the weight of the paper's probe, inverse(Sigma) theta, which is that
        of linear discriminant analysis; a comparison enters this one.
    shrinkage: Sigma is (1 - s) Sigma + s trace(Sigma) / width I, since there are fewer pairs than channels.
    """

    id: ClassVar[str] = "mass-mean"
    title: ClassVar[str] = "mass-mean direction"
    paper: ClassVar[str] = "2310.06824"

    form: str = "mean"
    shrinkage: float = 0.1

    @classmethod
    def variants(cls) -> tuple[SteeringMethod, ...]:
        return (cls(form="whitened"),)

    @property
    def label(self) -> str:
        return f"{self.title} ({self.form})"

    def direction(self, positive: Tensor, negative: Tensor) -> Tensor:
        """Raises `BadInput` for an unknown form, or a shrinkage outside of 0 (excluded) to 1."""
        theta = mean_difference(positive, negative)
        if self.form == "mean":
            return theta
        if self.form != "whitened":
            raise BadInput(f"form '{self.form}' is not known: {did_you_mean(self.form, FORMS)}")
        if not 0 < self.shrinkage <= 1:
            raise BadInput(f"shrinkage must be above 0 and at most 1, not {self.shrinkage}")
        return torch.linalg.solve(self._covariance(positive, negative), theta.double()).float()

    def _covariance(self, positive: Tensor, negative: Tensor) -> Tensor:
        """Within classes, both of equal weight, [width, width] float64."""
        centred = torch.cat([rows.double() - rows.double().mean(0) for rows in (positive, negative)])
        covariance = centred.T @ centred / len(centred)
        width = len(covariance)
        even = covariance.trace() / width * torch.eye(width, dtype=torch.float64, device=covariance.device)
        return (1 - self.shrinkage) * covariance + self.shrinkage * even
