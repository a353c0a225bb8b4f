"""ReAct: clip the penultimate activations at a percentile of those of the training data (Sun et al., 2021).

Inputs of another kind often drive a few units far above what they ever reach in training, and with them some logits.
Clipping takes that away and leaves usual inputs almost as they were; a score such as the energy is then computed on the
logits of the clipped network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..edits import SiteEdit, clamp
from ..edits.base import Provenance
from ..errors import BadInput
from ..model import Model
from .protocol import GuardMethod, activations


@dataclass(frozen=True)
class ReAct(GuardMethod):
    """Replace h by min(h, c) at the penultimate site; c is one number for all units.

    `percentile`: of all activations, over inputs and units together; 90 in the paper. `fit` wants inputs like the
    training data, some hundred of them: c is a quantile of (inputs x units) numbers, and settles quickly.
    """

    id = "react"
    title = "ReAct"
    paper = "2111.12797"

    percentile: float = 90.0

    def __post_init__(self) -> None:
        if not 0 < self.percentile <= 100:
            raise BadInput(f"percentile is {self.percentile}: it must be above 0 and at most 100")

    def fit(self, model: Model, inputs: Any) -> SiteEdit:
        """The clipping edit, which can be saved. Costs one forward of the inputs without head.

        Raises `BadInput` where the site is no vector for each example, or where c would be 0 and all would be clipped.
        """
        (site,) = model.sites.match(self.site)
        values = activations(model, site, inputs).numpy()
        threshold = float(np.percentile(values, self.percentile))
        if threshold <= 0:
            raise BadInput(
                f"the {self.percentile:g}th percentile of {site} is {threshold:.3g}, so that clipping would leave "
                "nothing: raise the percentile"
            )
        provenance = Provenance(model.fingerprint, self.recipe(), {site: model.table[site].equation})
        return clamp(site, high=threshold).with_provenance(provenance)
