"""Safety concept activation vectors, as an audit (Uncovering Safety Risks of LLMs through CAV, arXiv 2404.12038)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ..errors import BadInput
from ..model import Model
from ..parts.statistics import bootstrap_mean
from .concept_shift import ConceptShift


@dataclass(frozen=True)
class SCAV(ConceptShift):
    """How linearly each layer separates two kinds of prompts, and how small a shift crosses that boundary.

    `audit` gives the figures. `fit` gives the shift itself, to measure what a model's own habits withstand:
    eps = 1[P(e) > P0] (logit(P0) - b - w . e) / |w| at every layer whose held-out accuracy is above P1, on the last
    token of every forward. `side="at_least"` is the same shift towards the concept.

    probability: P0, 0.01% in the paper; the official code's default is 0.001.
    accuracy: P1.
    skewed: the official code's: probes are fitted on what a block reads and used on what it gives.
    """

    id: ClassVar[str] = "scav"
    title: ClassVar[str] = "SCAV"
    paper: ClassVar[str] = "2404.12038"

    site: str = "layers.*.out"
    probability: float = 1e-4
    side: str = "at_most"
    skewed: bool = False

    def read_sites(self, sites: Sequence[str]) -> list[str]:
        if not self.skewed:
            return list(sites)
        wrong = [site for site in sites if not site.endswith(".out") or site.count(".") != 2]
        if wrong:
            raise BadInput(f"skewed probes are read at a block's input and used at its output, not at {wrong[0]}")
        return [site.removesuffix("out") + "in" for site in sites]

    def audit(self, model: Model, data: Any) -> list[dict[str, Any]]:
        """One entry for each site: `accuracy` on held-out pairs, and the shift that takes the positive side across.

        `to_boundary` and `to_target` are the lengths of the shift to probability 0.5 and to `probability`, as shares of
        the activation's norm, each a mean over pairs with an interval. Raises as `fit`, but for accuracy.
        """
        sites = [found.address for found in model.match(self.site)]
        origins = self.read_sites(sites)
        contrast = self.contrast(model, data, origins)
        rows = []
        for (site, concept), origin in zip(self._fitted(contrast, sites, held_out=True).items(), origins, strict=True):
            h = contrast.positive[origin]
            shares = {
                name: (concept.shift(h, probability, self.side).abs() / h.norm(dim=-1)).numpy()
                for name, probability in (("to_boundary", 0.5), ("to_target", self.probability))
            }
            intervals = {
                name: bootstrap_mean(values, groups=list(contrast.groups)).as_dict() for name, values in shares.items()
            }
            rows.append({"site": site, "accuracy": concept.accuracy, **intervals})
        return rows
