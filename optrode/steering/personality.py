"""A trait as a coordinate set to a level (Identifying and Manipulating Personality Traits, arXiv 2412.10427)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ..data import Behaviour
from ..edits import SiteEdit, subspace
from ..edits.base import Edit, Sum
from ..errors import BadInput, NotFinite, did_you_mean
from ..maps import Map
from ..model import Model
from ..parts.contrast import median_norms
from ..parts.pairs import showing_and_neutral
from ..parts.provenance import provenance_of
from .protocol import SteeringMethod

FORMS = ("set", "affine")


@dataclass(frozen=True)
class Personality(SteeringMethod):
    """Set every token's coordinate on a trait's direction to the level that prompts of the trait have.

    r = mean over prompts of the trait - mean over neutral prompts at the last prompt token, u = r / |r|, m = the
    trait's mean coordinate on u. Then a - (a . u) u + alpha m u: what a token had on u is gone, the rest stays;
    alpha = 0 takes the trait away (directional ablation).

    data: `Categorised` prompts (`optrode.data.traits.trait_prompts`), its target the trait. Pairs or a `Behaviour`:
        their showing replies are the trait, the opposing ones neutral, read at the last token.
    form: `set`, the paper's. `affine` counts levels from the neutral one m0, so that alpha = 0 is neutral and not zero:
        a - (a . u) u + (m0 + alpha (m - m0)) u.
    alpha: the paper finds 1.3 to 1.4 best, and that text suffers above.
    site: the paper takes layer 18 of 32, found by trial.
    positions: all tokens but special ones and the template's; where the paper's act is not said. `all` reaches the
        first token, whose huge activation no trait has anything to do with.
    """

    id: ClassVar[str] = "personality"
    title: ClassVar[str] = "personality feature"
    paper: ClassVar[str] = "2412.10427"
    strength_unit: ClassVar[str] = "operator"
    strength_scale: ClassVar[float] = 2.5

    site: str = "layers.18.out"
    positions: str = "content"
    form: str = "set"
    alpha: float = 1.3

    def facing(self, sign: int) -> SteeringMethod:
        """Against a trait the coordinate goes to the other side of neutral, which only the affine form knows of."""
        return replace(self, form="affine", alpha=sign * abs(self.alpha))

    def fit(self, model: Model, data: Any) -> Edit:
        """An edit at every site that `site` selects. Strength 0.5 goes half of the way.

        Raises `UnknownSite`, `NotFinite`, and `BadInput` for empty data or no difference. Cost: one forward a prompt.
        """
        sites = [found.address for found in model.match(self.site)]
        edits = tuple(self._fitted(model, data, sites).values())
        return edits[0] if len(edits) == 1 else Sum(edits)

    def fit_layers(self, model: Model, behaviour: Behaviour, layers: Sequence[int]) -> dict[int, Edit]:
        sites = {layer: self.layer_site.format(layer=layer) for layer in layers}
        found = self._fitted(model, behaviour, list(sites.values()))
        return {layer: found[site] for layer, site in sites.items()}

    def space(self, model: Model, traits: Mapping[str, Any]) -> Map:
        """Cosines between the directions of several traits at `site`, which selects one: data by trait's name."""
        sites = [found.address for found in model.match(self.site)]
        if len(sites) != 1 or not traits:
            raise BadInput(f"a map of traits needs one site and at least one trait: '{self.site}' selects {len(sites)}")
        units = torch.stack([self._direction(model, data, sites)[sites[0]][0] for data in traits.values()])
        names = list(traits)
        return Map(np.asarray((units @ units.T).cpu()), {"trait": names, "other": names}, "cosine")

    def _fitted(self, model: Model, data: Any, sites: list[str]) -> dict[str, SiteEdit]:
        if self.form not in FORMS:
            raise BadInput(f"form '{self.form}' is not known: {did_you_mean(self.form, FORMS)}")
        norms = median_norms(model, showing_and_neutral(data)[1][:16], sites)
        found = {}
        for site, (unit, level, neutral) in self._direction(model, data, sites).items():
            start = neutral if self.form == "affine" else 0.0
            goal = start + self.alpha * (level - start)
            bias = torch.tensor([goal], dtype=torch.float32)
            edit = subspace(site, unit.float(), torch.zeros(1, len(unit)), bias, self.positions)
            known = {**self.recipe(), "level": round(level, 4), "neutral": round(neutral, 4)}
            found[site] = replace(edit, provenance=provenance_of(model, site, known, norms[site]))
        return found

    def _direction(self, model: Model, data: Any, sites: list[str]) -> dict[str, tuple[Tensor, float, float]]:
        """By site: u in float64, the trait's mean coordinate on it, and the neutral prompts'."""
        shown, neutral = showing_and_neutral(data)
        acts = model.read([*shown, *neutral], sites, positions="last_prompt")
        found = {}
        for site in sites:
            rows = acts[site].double()
            if not bool(torch.isfinite(rows).all()):
                raise NotFinite(f"the activations at {site} hold NaN or infinity: use float32, or check the inputs")
            one, other = rows[: len(shown)].mean(0), rows[len(shown) :].mean(0)
            length = float((one - other).norm())
            if not length > 1e-5 * float(one.norm()):
                raise BadInput(f"the prompts of the trait and the neutral ones have the same activations at {site}")
            unit = (one - other) / length
            found[site] = unit, float(one @ unit), float(other @ unit)
        return found
