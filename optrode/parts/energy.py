"""The energy of logits as a score: how much evidence a classifier finds for any class at all."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..activations import Activations
from ..errors import BadInput


@dataclass(frozen=True)
class EnergyScore:
    """T * logsumexp(logits / T) at one site: high where an input looks like the training data.

    That is the negative of the free energy. `temperature` T > 0. Differentiable. Raises `BadInput` for T <= 0.

    >>> acts = Activations({"logits": torch.zeros(1, 4)}, {"logits": ("example", "feature")})
    >>> round(float(EnergyScore()(acts)), 4)
    1.3863
    """

    temperature: float = 1.0
    site: str = "logits"

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise BadInput(f"temperature is {self.temperature}: it must be above 0")

    @property
    def sites(self) -> tuple[str, ...]:
        return (self.site,)

    def __call__(self, activations: Activations) -> Tensor:
        """[example], or [example, token] where there is a prediction for each token; float32 or wider."""
        logits = activations[self.site]
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return self.temperature * torch.logsumexp(logits / self.temperature, dim=-1)
