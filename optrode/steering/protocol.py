"""What a steering method is: contrast pairs in, an edit out, at one site or at many layers from one read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor

from ..data import Behaviour, Pair
from ..edits import SiteEdit, add
from ..edits.base import Edit, SiteEditBase, Sum
from ..model import Model
from ..parts.contrast import Contrast, read_contrast
from ..parts.method import Method
from ..parts.pairs import as_pairs, conversation
from ..parts.provenance import provenance_of
from ..parts.strength import in_stream_units


@dataclass(frozen=True)
class SteeringMethod(Method):
    """Base of the family. `role` tells a table what a row is: method, baseline or control.

    `layer_site` is the site that a search over layers varies; `strength_scale` multiplies the strengths that are tried,
    for methods that touch so few positions that a share of the norm would be too little. `strength_unit` is `stream`
    where a strength of 1 in `fit_layers` is a change as long as the stream's norm, and turns with its sign. It is
    `operator` where the method itself says how far each token goes: 1 is its whole change, and `facing` turns it.
    """

    role: ClassVar[str] = "method"
    layer_site: ClassVar[str] = "layers.{layer}.out"
    strength_scale: ClassVar[float] = 1.0
    strength_unit: ClassVar[str] = "stream"

    @classmethod
    def variants(cls) -> tuple[SteeringMethod, ...]:
        """The settings that a comparison enters: one by default, several where published forms differ in kind."""
        return (cls(),)

    def facing(self, sign: int) -> SteeringMethod:
        """The same method for (1) or against (-1) the behaviour; unit `stream` is turned by its strength instead."""
        return self

    @property
    def label(self) -> str:
        """What a table calls this setting of the method."""
        return self.title

    def fit(self, model: Model, data: Any) -> Edit:
        """The edit as published, strength 1 in the method's own units."""
        raise NotImplementedError

    def fit_layers(self, model: Model, behaviour: Behaviour, layers: Sequence[int]) -> dict[int, Edit]:
        """One edit per layer, with a strength in the method's `strength_unit`; a positive one means more behaviour."""
        raise NotImplementedError


@dataclass(frozen=True)
class DirectionMethod(SteeringMethod):
    """Methods that estimate one direction from contrast activations and add it.

    A method gives `direction` (rows to vector) and may change `conversations` (how a pair becomes two prompts).
    """

    site: str = "layers.15.out"
    positions: str = "after_instruction"

    def direction(self, positive: Tensor, negative: Tensor) -> Tensor:
        """[pair, width] of both sides -> [width], pointing from negative to positive."""
        raise NotImplementedError

    def conversations(self, pairs: Sequence[Pair]) -> tuple[list[Any], list[Any]]:
        """Prompts that show and oppose the behaviour; each is read at its last token."""
        return (
            [conversation(pair.prompt, pair.positive) for pair in pairs],
            [conversation(pair.prompt, pair.negative) for pair in pairs],
        )

    def contrast(self, model: Model, data: Any, sites: str | Sequence[str]) -> Contrast:
        """Read the method's prompts at sites. Raises `BadInput` for empty or one-class data."""
        pairs = as_pairs(data)
        positive, negative = self.conversations(pairs)
        return read_contrast(model, positive, negative, sites, groups=[pair.group for pair in pairs])

    def edit_at(self, model: Model, contrast: Contrast, site: str) -> SiteEditBase:
        """The edit at one site that was read: an addition; overridden by methods that do more."""
        vector = self.direction(*contrast.at(site))
        return self.signed(model, add(site, vector, self.positions), contrast.norm[site])

    def signed(self, model: Model, edit: SiteEdit, norm: float) -> SiteEdit:
        """The edit with its provenance: model, recipe, equation of the site, norm of the stream there."""
        return replace(edit, provenance=provenance_of(model, edit.site, self.recipe(), norm))

    def fit(self, model: Model, data: Any) -> Edit:
        """Pairs (or a `Behaviour`) -> an edit at every site that `site` selects.

        Raises `UnknownSite`, `BadInput` (empty or one-class data), `NotFinite`. Cost: one forward per
        conversation, up to the last site.
        """
        sites = [found.address for found in model.match(self.site)]
        contrast = self.contrast(model, data, sites)
        edits = tuple(self.edit_at(model, contrast, site) for site in sites)
        return edits[0] if len(edits) == 1 else Sum(edits)

    def fit_layers(self, model: Model, behaviour: Behaviour, layers: Sequence[int]) -> dict[int, Edit]:
        sites = [self.layer_site.format(layer=layer) for layer in layers]
        return self.fit_contrast(model, self.contrast(model, behaviour, sites), layers)

    def fit_contrast(self, model: Model, contrast: Contrast, layers: Sequence[int]) -> dict[int, Edit]:
        """`fit_layers` on activations that were read already, so that methods with the same prompts share one read."""
        sites = {layer: self.layer_site.format(layer=layer) for layer in layers}
        return {layer: self.stream_edit(model, contrast, site) for layer, site in sites.items()}

    def stream_edit(self, model: Model, contrast: Contrast, site: str) -> SiteEdit:
        """The method's direction at one site, with a strength that is a share of the stream's norm."""
        edit = add(site, self.direction(*contrast.at(site)), self.positions)
        return in_stream_units(self.signed(model, edit, contrast.norm[site]), contrast.norm[site])
