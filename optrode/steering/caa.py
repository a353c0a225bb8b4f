"""Contrastive Activation Addition (Steering Llama 2 via Contrastive Activation Addition, arXiv 2312.06681)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from ..data import Pair
from ..edits import project_out
from ..edits.base import SiteEdit, SiteEditBase
from ..errors import BadInput, NotSupported, did_you_mean
from ..model import Model
from ..parts.contrast import Contrast
from ..parts.directions import mean_difference
from ..parts.pairs import as_letters, conversation
from .protocol import DirectionMethod, SteeringMethod

FORMS = ("letters", "replies")


@dataclass(frozen=True)
class CAA(DirectionMethod):
    """Mean difference of block outputs at the answer token, added at every position after the user's turn.

    v = mean over pairs of h(matching answer) - h(other answer), neither centred nor of unit norm (section 2). A
    strength is the paper's multiplier, -1.5 to 1.5 there.

    form: `letters`, the paper's: each pair becomes a two-choice question whose answer letter is read, both letters
        equally often right. `replies`: the last token of the reply itself is read, as many users of the method do.
    project_first: the official code's option: at all positions the component along v is removed before v is added. A
        strength scales the removal too, so it is the code's multiplier only at 1.
    site: where v is read and added; the paper's sweep found layers 13 to 15 of 32 to 40.
    """

    id: ClassVar[str] = "caa"
    title: ClassVar[str] = "CAA"
    paper: ClassVar[str] = "2312.06681"

    form: str = "letters"
    project_first: bool = False

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise BadInput(f"form '{self.form}' is not known: {did_you_mean(self.form, FORMS)}")

    @classmethod
    def variants(cls) -> tuple[SteeringMethod, ...]:
        return tuple(cls(form=form) for form in FORMS)

    @property
    def label(self) -> str:
        return f"{self.title} ({self.form})"

    def conversations(self, pairs: Sequence[Pair]) -> tuple[list[Any], list[Any]]:
        if self.form == "replies":
            return super().conversations(pairs)
        asked = as_letters(pairs)
        return (
            [conversation(item.question, item.positive) for item in asked],
            [conversation(item.question, item.negative) for item in asked],
        )

    def contrast(self, model: Model, data: Any, sites: str | Sequence[str]) -> Contrast:
        if self.form == "letters":
            _check_letters(model)
        return super().contrast(model, data, sites)

    def direction(self, positive: Tensor, negative: Tensor) -> Tensor:
        return mean_difference(positive, negative)

    def stream_edit(self, model: Model, contrast: Contrast, site: str) -> SiteEdit:
        if self.project_first:
            raise NotSupported("project_first has no strength in units of the stream: what it removes varies; use fit")
        return super().stream_edit(model, contrast, site)

    def edit_at(self, model: Model, contrast: Contrast, site: str) -> SiteEditBase:
        addition = super().edit_at(model, contrast, site)
        if not self.project_first:
            return addition
        removal = project_out(site, self.direction(*contrast.at(site)), "all")
        chained = self.signed(model, removal, contrast.norm[site]) >> addition
        assert isinstance(chained, SiteEditBase)
        return chained


def _check_letters(model: Model) -> None:
    """The answer's last token must be the letter itself: a tokenizer that joins it to more would be read wrongly."""
    for letter in "AB":
        batch = model.encode(conversation("?", f"({letter}"))
        last = model.tokenizer.decode([int(batch.ids[0, -1])])
        if not last.strip().endswith(letter):
            raise BadInput(
                f"this tokenizer ends '({letter}' with the token {last!r}, not the letter: use form='replies'"
            )
