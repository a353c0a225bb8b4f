"""Few-shot prompting: pairs of the fit split as earlier turns of the conversation, each answered in the wanted way."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from ..edits.base import Edit
from ..edits.prefix import PrefixEdit
from ..errors import BadInput
from ..model import Model
from ..parts.pairs import as_pairs
from .protocol import SteeringMethod


@dataclass(frozen=True)
class FewShot(SteeringMethod):
    """`count` example turns in front of the conversation, from as many groups of pairs as there are.

    What a direction is fitted on is shown to the model instead. `against` shows the opposing replies.
    """

    id: ClassVar[str] = "few-shot"
    title: ClassVar[str] = "few-shot prompting"
    role: ClassVar[str] = "baseline"

    count: int = 6
    against: bool = False

    def facing(self, sign: int) -> FewShot:
        return replace(self, against=sign < 0)

    def fit(self, model: Model, data: Any) -> Edit:
        """Pairs or a `Behaviour`. Raises `BadInput` for empty data or a count below 1."""
        pairs = as_pairs(data)
        if self.count < 1:
            raise BadInput(f"few-shot prompting needs at least 1 example, not {self.count}")
        step = max(1, len(pairs) // self.count)
        turns: list[tuple[str, str]] = []
        for pair in pairs[::step][: self.count]:
            turns += [("user", pair.prompt), ("assistant", pair.negative if self.against else pair.positive)]
        return PrefixEdit(turns=tuple(turns))
