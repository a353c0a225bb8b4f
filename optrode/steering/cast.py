"""Conditional activation steering (Programming Refusal with Conditional Activation Steering, arXiv 2409.05907)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

from torch import Tensor

from ..data import Behaviour
from ..edits import ConditionalEdit, add, when
from ..edits.base import Edit, SiteEdit, SiteEditBase, Sum
from ..errors import BadInput
from ..model import Model
from ..parts.contrast import Contrast, read_contrast
from ..parts.directions import principal_direction
from ..parts.gates import Gate, fit_gate, pairs_of, prompts_of
from ..parts.pairs import as_pairs, conversation
from ..parts.provenance import provenance_of
from ..parts.strength import in_stream_units
from .protocol import SteeringMethod


@dataclass(frozen=True)
class CAST(SteeringMethod):
    """A behaviour vector that is added on prompts of one class only, told by a condition vector read from the prompt.

    Both vectors are first principal components after the midpoint of each pair is taken off, of unit length: of the
    mean over the reply's tokens for the behaviour, of the mean over the prompt's tokens for the condition. On a prompt
    whose mean h at the condition's site has cos(h, tanh(c c^T h / c^T c)) on the right side of a threshold, strength
    times the behaviour vector is added at every layer of `site` (section 3).

    site: where the behaviour acts; the paper's tutorial takes layers 15 to 23 of 32, `layers.15-23.out`.
    positions: `all`, or `generated` for the official code's option to leave the prompt alone.
    form: of the principal component; `global_centred` and `centred_difference` are the official code's other two.
    condition_site: those on offer, of which F1 chooses one; the ones after the first layer of `site` are left out,
        since there the prompt has passed the behaviour's layer by the time it is judged.
    condition_positions: the paper's are `prompt`, every token, template and start token too; these hold the massive
        activations that swamp a mean, so that `content` is the default.
    search: `midpoints`, on prompts that the condition vector was not fitted on; `official`, the official code's grid,
        its rounding, and the same prompts for both.
    skewed: the official code's: vectors are read at what a block gives and used at what the same block reads, so that
        `site` and `condition_site` must select inputs, such as `layers.15.in`.

    Rules with several conditions are written with `op.edits.when` and `&`, `|`, `~`. The official code's rescaling to
    the old norm is left out.
    """

    id: ClassVar[str] = "cast"
    title: ClassVar[str] = "CAST"
    paper: ClassVar[str] = "2409.05907"

    site: str = "layers.15.out"
    positions: str = "all"
    form: str = "pair_centred"
    condition_site: str = "layers.*.out"
    condition_positions: str = "content"
    search: str = "midpoints"
    skewed: bool = False

    def fit(self, model: Model, data: Any) -> Edit:
        """`Conditioned` data, or pairs or a `Behaviour`, whose class is what they ask, against everyday requests.

        Raises `UnknownSite`, `NotFinite`, and `BadInput` for empty or one-class data. Cost: one forward a conversation
        and prompt.
        """
        sites = [found.address for found in model.match(self.site)]
        contrast = self.contrast(model, data, sites)
        parts = tuple(self._vector(model, contrast, site) for site in sites)
        gate = self.fit_gate(model, data, before=sites[0])
        return self._conditional(gate, parts[0] if len(parts) == 1 else Sum(parts))

    def fit_layers(self, model: Model, behaviour: Behaviour, layers: Sequence[int]) -> dict[int, Edit]:
        ports = "in" if self.skewed else "out"
        sites = {layer: f"layers.{layer}.{ports}" for layer in layers}
        contrast = self.contrast(model, behaviour, list(sites.values()))
        found: dict[int, Edit] = {}
        for layer, site in sites.items():
            gate = self.fit_gate(model, behaviour, before=site)
            found[layer] = self._conditional(
                gate, in_stream_units(self._vector(model, contrast, site), contrast.norm[self.read_at(site)])
            )
        return found

    def contrast(self, model: Model, data: Any, sites: Sequence[str]) -> Contrast:
        """Both replies of each pair, as the mean over their tokens."""
        pairs = as_pairs(pairs_of(data))
        positive = [conversation(pair.prompt, pair.positive) for pair in pairs]
        negative = [conversation(pair.prompt, pair.negative) for pair in pairs]
        origins = [self.read_at(site) for site in sites]
        positions = "assistant" if model.is_chat else "prompt"
        groups = [pair.group for pair in pairs]
        return read_contrast(model, positive, negative, origins, groups=groups, positions=positions, reduce="mean")

    def fit_gate(self, model: Model, data: Any, *, before: str) -> Gate:
        """The condition: its vector, site, threshold and comparison, and how well each site did.

        `before`: the first site at which the edit acts.
        """
        inside, outside = prompts_of(data)
        last = model.match(before)[0].rank
        sites = [site.address for site in model.match(self.condition_site) if last and site.rank and site.rank <= last]
        if not sites:
            raise BadInput(
                f"no site of '{self.condition_site}' comes before {before}, where the edit acts: name an earlier one"
            )
        estimator = partial(principal_direction, form=self.form)
        return fit_gate(
            model, inside, outside, sites, estimator, measure="projected_cosine",
            positions=self.condition_positions, search=self.search, read_at=self.read_at,
        )  # fmt: skip

    def read_at(self, site: str) -> str:
        """Where the vector of a site is read."""
        if not self.skewed:
            return site
        if not site.endswith(".in") or site.count(".") != 2:
            raise BadInput(f"skewed vectors are used at a block's input, not at {site}: use layers.N.in")
        return site.removesuffix("in") + "out"

    def _vector(self, model: Model, contrast: Contrast, site: str) -> SiteEdit:
        origin = self.read_at(site)
        vector: Tensor = principal_direction(*contrast.at(origin), form=self.form)
        edit = add(site, vector, self.positions)
        return replace(edit, provenance=provenance_of(model, site, self.recipe(), contrast.norm[origin]))

    def _conditional(self, gate: Gate, edit: SiteEditBase) -> ConditionalEdit:
        """The edit on its condition; what is known of the gate travels with every part."""
        recipe = {**self.recipe(), **gate.recipe()}
        parts = [replace(leaf, provenance=replace(leaf.provenance, recipe=recipe)) for leaf in edit.leaves()]
        return when(gate.condition, parts[0] if len(parts) == 1 else Sum(tuple(parts)))
