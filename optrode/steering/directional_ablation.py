"""Directional ablation (Refusal in Language Models Is Mediated by a Single Direction, arXiv 2406.11717)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor

from ..data import Behaviour
from ..edits import project_out
from ..edits.base import Edit
from ..errors import BadInput
from ..model import Model
from ..parts.contrast import read_contrast
from ..parts.directions import mean_difference
from ..parts.pairs import as_pairs, conversation
from ..parts.provenance import provenance_of
from .protocol import SteeringMethod

EVERYWHERE = "layers.*.out"


@dataclass(frozen=True)
class DirectionalAblation(SteeringMethod):
    """The mean-difference direction of one layer, taken out of the output of every block at every position.

    h - c (h.u) u with u = v / |v|; c = 1 removes it whole (section 2.4). The paper ablates after attention too; in
    between two blocks' outputs the direction can come back here.

    depth: where v is read, as a share of the layers.
    against: True removes the behaviour, as in the paper. False doubles it at c = 1: h + c (h.u) u, an extension.
    """

    id: ClassVar[str] = "directional-ablation"
    title: ClassVar[str] = "directional ablation"
    paper: ClassVar[str] = "2406.11717"
    strength_unit: ClassVar[str] = "operator"
    strength_scale: ClassVar[float] = 2.5  # the largest strength that a search tries becomes the whole removal

    depth: float = 0.5
    against: bool = True

    def facing(self, sign: int) -> DirectionalAblation:
        return replace(self, against=sign < 0)

    def fit(self, model: Model, data: Any) -> Edit:
        """Pairs or a `Behaviour`; strength is c. Raises `BadInput`, `NotFinite`. Cost: one forward per conversation."""
        layer = min(model.layers - 1, max(0, round(self.depth * model.layers)))
        return self._fit(model, data, [layer])[layer]

    def fit_layers(self, model: Model, behaviour: Behaviour, layers: Sequence[int]) -> dict[int, Edit]:
        return self._fit(model, behaviour, layers)

    def _fit(self, model: Model, data: Any, layers: Sequence[int]) -> dict[int, Edit]:
        pairs = as_pairs(data)
        sites = {layer: f"layers.{layer}.out" for layer in layers}
        contrast = read_contrast(
            model,
            [conversation(pair.prompt, pair.positive) for pair in pairs],
            [conversation(pair.prompt, pair.negative) for pair in pairs],
            list(sites.values()),
            groups=[pair.group for pair in pairs],
        )
        return {
            layer: self._edit(model, mean_difference(*contrast.at(site)), site, contrast.norm[site])
            for layer, site in sites.items()
        }

    def _edit(self, model: Model, vector: Tensor, site: str, norm: float) -> Edit:
        if not float(vector.norm()) > 0:
            raise BadInput("the fitted vector is zero: both sides of the contrast have the same activations")
        edit = project_out(EVERYWHERE, vector, "all")
        known = provenance_of(model, site, {**self.recipe(), "read_at": site}, norm)
        edit = replace(edit, provenance=known)
        return edit if self.against else edit * -1
