"""What methods share that move the opposing replies' activations, as a set, to where the showing ones lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from ..edits import SiteEdit
from ..model import Model
from ..parts.contrast import Contrast, read_contrast
from ..parts.pairs import as_pairs, conversation
from ..parts.provenance import provenance_of
from .protocol import SteeringMethod

# Conversations of the source, and of the target.
Talks = tuple[list[Any], list[Any]]


@dataclass(frozen=True)
class TransportMethod(SteeringMethod):
    """Base of methods that fit a map of every coordinate from a source set of activations to a target set.

    pool: the tokens over which an example is averaged; the published code takes all of a text.
    away: from the showing replies to the opposing ones.

    A strength of 1 is the map, 0.5 the middle of the way. Source and target need not belong together; as pairs they are
    equally many, which is what comparing by rank needs.
    """

    strength_unit: ClassVar[str] = "operator"
    # The strengths that a comparison tries end at 0.4, which is the whole map.
    strength_scale: ClassVar[float] = 2.5

    site: str = "layers.*.{attn,mlp}.out"
    positions: str = "all"
    pool: str = "assistant"
    away: bool = False

    def facing(self, sign: int) -> SteeringMethod:
        return replace(self, away=sign < 0)

    def talks(self, data: Any) -> Talks:
        """Source and target conversations. Raises `BadInput` for empty data."""
        pairs = as_pairs(data)
        showing = [conversation(pair.prompt, pair.positive) for pair in pairs]
        opposing = [conversation(pair.prompt, pair.negative) for pair in pairs]
        return (showing, opposing) if self.away else (opposing, showing)

    def read(self, model: Model, talks: Talks, sites: Sequence[str]) -> Contrast:
        """Means over the pooled tokens: the source as `negative`, the target as `positive`."""
        source, target = talks
        return read_contrast(model, target, source, sites, positions=self.pooled(model), reduce="mean")

    def pooled(self, model: Model) -> str:
        """The tokens that are averaged; without a chat template nobody knows which ones the assistant said."""
        return self.pool if model.is_chat or self.pool != "assistant" else "prompt"

    def signed(self, model: Model, edit: SiteEdit, norm: float, **known: Any) -> SiteEdit:
        """The edit with what is known of its fit."""
        return replace(edit, provenance=provenance_of(model, edit.site, {**self.recipe(), **known}, norm))
