"""What methods with concept activation vectors share: probes, and the smallest shift that satisfies them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from ..data import Behaviour
from ..edits import SiteEdit
from ..edits.base import Edit, SiteEditBase, Sum
from ..model import Model
from ..parts.concepts import Concept, accurate, fit_concepts
from ..parts.contrast import Contrast, read_contrast
from ..parts.gates import pairs_of
from ..parts.pairs import as_pairs, conversation
from ..parts.provenance import provenance_of
from .protocol import SteeringMethod


@dataclass(frozen=True)
class ConceptShift(SteeringMethod):
    """Base of methods that shift every token just so far that a probe of its site gives a wanted probability.

    site: where probes are fitted and act. Where it selects several, those whose probe is right on more than `accuracy`
        of held-out pairs are used, and each acts on what the ones before it left; a single one is used as it is.
    probability, side: what the probe has to say afterwards; `at_least` adds the concept, `at_most` takes it away.
        Tokens that satisfy it already are not touched.
    penalty, standardised: of the logistic regression; they set the length of the probe's weight, and so of the shift.

    A strength of 1 is the whole shift, 0.5 half of it.
    """

    strength_unit: ClassVar[str] = "operator"
    # The strengths that a comparison tries end at 0.4, which is the whole shift.
    strength_scale: ClassVar[float] = 2.5

    site: str = "layers.15.out"
    positions: str = "newest"
    probability: float = 0.9999
    side: str = "at_least"
    accuracy: float = 0.9
    penalty: float = 1.0
    standardised: bool = False

    def facing(self, sign: int) -> SteeringMethod:
        """The same shift towards (1) or away from (-1) the concept."""
        most = max(self.probability, 1 - self.probability)
        side, probability = ("at_least", most) if sign > 0 else ("at_most", 1 - most)
        return replace(self, side=side, probability=probability)

    def contrast(self, model: Model, data: Any, sites: Sequence[str]) -> Contrast:
        """Both replies of each pair, read at their last token."""
        pairs = as_pairs(pairs_of(data))
        positive = [conversation(pair.prompt, pair.positive) for pair in pairs]
        negative = [conversation(pair.prompt, pair.negative) for pair in pairs]
        return read_contrast(model, positive, negative, sites, groups=[pair.group for pair in pairs])

    def concepts(self, model: Model, data: Any) -> dict[str, Concept]:
        """The probes of all sites that `site` selects, with their accuracy on held-out pairs, by address.

        Raises `UnknownSite`, `BadInput` (empty or one-class data, fewer than two groups), `NotFinite`.
        """
        sites = [found.address for found in model.match(self.site)]
        return self._fitted(self.contrast(model, data, self.read_sites(sites)), sites, held_out=True)

    def fit(self, model: Model, data: Any) -> Edit:
        """Pairs (or a `Behaviour`) -> an edit at every site that separates them.

        Raises `UnknownSite`, `NotFinite`, and `BadInput` for empty or one-class data and where no site separates them.
        Cost: one forward a conversation, up to the last site, and six logistic regressions a site, one for one site.
        """
        sites = [found.address for found in model.match(self.site)]
        contrast = self.contrast(model, data, self.read_sites(sites))
        concepts = self._fitted(contrast, sites, held_out=len(sites) > 1)
        if len(sites) > 1:
            concepts = accurate(concepts, self.accuracy)
        return self._joined(model, concepts, contrast)

    def fit_layers(self, model: Model, behaviour: Behaviour, layers: Sequence[int]) -> dict[int, Edit]:
        """One edit per layer; strength 1 is the whole shift."""
        sites = {layer: self.layer_site.format(layer=layer) for layer in layers}
        contrast = self.contrast(model, behaviour, self.read_sites(list(sites.values())))
        concepts = self._fitted(contrast, list(sites.values()), held_out=False)
        return {layer: self._joined(model, {site: concepts[site]}, contrast) for layer, site in sites.items()}

    def read_sites(self, sites: Sequence[str]) -> list[str]:
        """Where the rows of each site's probe are read; the same site by default."""
        return list(sites)

    def _fitted(self, contrast: Contrast, sites: Sequence[str], *, held_out: bool) -> dict[str, Concept]:
        origins = self.read_sites(sites)
        found = fit_concepts(contrast, origins, penalty=self.penalty, standardised=self.standardised, held_out=held_out)
        return {site: replace(found[origin], site=site) for site, origin in zip(sites, origins, strict=True)}

    def _joined(self, model: Model, concepts: dict[str, Concept], contrast: Contrast) -> SiteEditBase:
        origins = dict(zip(concepts, self.read_sites(list(concepts)), strict=True))
        edits = tuple(self._edit(model, one, contrast.norm[origins[site]]) for site, one in concepts.items())
        return edits[0] if len(edits) == 1 else Sum(edits)

    def _edit(self, model: Model, concept: Concept, norm: float) -> SiteEdit:
        edit = concept.edit(self.probability, self.side, self.positions)
        known = {} if concept.accuracy is None else {"held_out_accuracy": round(concept.accuracy, 4)}
        recipe = {**self.recipe(), **known}
        return replace(edit, provenance=provenance_of(model, edit.site, recipe, norm))
