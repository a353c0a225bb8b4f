"""Energy: the logsumexp of the logits instead of the largest softmax (Liu et al., 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..model import Model
from ..parts.energy import EnergyScore
from .protocol import GuardMethod


@dataclass(frozen=True)
class Energy(GuardMethod):
    """Score an input by T * logsumexp(logits / T): high where the network finds evidence for some class.

    `temperature` is 1 in the paper's main results. Nothing is fitted, so that `fit` may be given no inputs.
    """

    id = "energy"
    title = "Energy"
    paper = "2010.03759"

    site: str = "logits"
    temperature: float = 1.0

    def fit(self, model: Model, inputs: Any = None) -> EnergyScore:
        """The score. Raises `UnknownSite` where the network has no such site. Costs nothing."""
        (site,) = model.sites.match(self.site)
        return EnergyScore(self.temperature, site)
