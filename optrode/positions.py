"""Positions by role: which tokens of a row an edit or a read touches.

Written as a short text, so that it prints, saves and compares well:

| text | selects, per row |
|---|---|
| `all` | every token but padding, generated ones too |
| `prompt` / `generated` | what was given / what the model writes; `generated:0-3` the first four written tokens |
| `last_prompt` | the last prompt token |
| `newest` | the last prompt token, and every written one: the tokens from which the next is predicted |
| `after_instruction` | what follows the last user turn: assistant header, forced opening, all written tokens |
| `user`, `system`, `assistant`, `template`, `text`, `image` | the tokens of one role |
| `content` | all prompt tokens except padding, special tokens and the template's own, and all written tokens |
| `dialogue` | `content` without the system prompt |
| `first:5`, `first:5@user` | the first five tokens of the row, or of a role |
| `index:0,2,-1` | places counted in the row's own tokens, from either end of the prompt |
| `span:the Eiffel Tower` | the tokens that overlap this text wherever it stands in the prompt |
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .batches import Batch, Role
from .errors import BadInput, did_you_mean

if TYPE_CHECKING:
    import torch

ROLE_NAMES = {
    "template": Role.TEMPLATE,
    "system": Role.SYSTEM,
    "user": Role.USER,
    "assistant": Role.ASSISTANT,
    "text": Role.TEXT,
    "image": Role.IMAGE,
}
_PLAIN = (
    "all", "prompt", "generated", "last_prompt", "newest", "after_instruction", "content", "dialogue", *ROLE_NAMES,
)  # fmt: skip
_WRITTEN = ("all", "generated", "newest", "after_instruction", "content", "dialogue")
_ENDLESS = 10**10


@dataclass(frozen=True)
class Positions:
    """A parsed selection of positions; `str()` gives back the text.

    Raises `BadInput` when the text is no selection.

    >>> str(Positions("first:5@user"))
    'first:5@user'
    """

    text: str = "all"

    def __post_init__(self) -> None:
        if self.text not in _PLAIN and not re.fullmatch(
            r"generated:#(-(#)?)?|first:[1-9][0-9]{0,8}(@(template|system|user|assistant|text|image))?|index:-?#(,-?#)*|span:.+"
            # Longer numbers are no place in any text, and python refuses to read very long ones.
            .replace("#", "[0-9]{1,9}"),
            self.text,
            flags=re.DOTALL,
        ):
            raise BadInput(f"positions {self.text!r} are not known: {did_you_mean(self.text, _PLAIN)}")

    def __str__(self) -> str:
        return self.text

    @property
    def touches_prompt(self) -> bool:
        return not self.text.startswith("generated")

    def in_prompt(self, batch: Batch) -> torch.Tensor:
        """Which prompt tokens are selected: bool [example, token]. Padding never is."""
        return _select_prompt(self.text, batch) & batch.mask

    def in_generated(self, start: int, count: int) -> list[bool]:
        """Which of the written tokens number `start` to `start + count - 1` (from 0) are selected."""
        chosen = self._written()
        return [step in chosen for step in range(start, start + count)]

    def written_before(self, step: int) -> int:
        """How many of the written tokens before number `step` are selected."""
        chosen = self._written()
        return max(0, min(step, chosen.stop) - chosen.start)

    def _written(self) -> range:
        """The numbers of the written tokens that are selected."""
        if self.text in _WRITTEN:
            return range(_ENDLESS)
        span = re.fullmatch(r"generated:([0-9]+)(-([0-9]*))?", self.text)
        if not span:
            return range(0)
        last = span[1] if span[2] is None else span[3]
        return range(int(span[1]), int(last) + 1 if last else _ENDLESS)


def _select_prompt(text: str, batch: Batch) -> torch.Tensor:
    import torch

    if text in ("all", "prompt"):
        return batch.mask
    if text in ROLE_NAMES:
        return batch.roles == ROLE_NAMES[text]
    if text == "content":
        return ~batch.special & (batch.roles != Role.TEMPLATE)
    if text == "dialogue":
        return ~batch.special & (batch.roles != Role.TEMPLATE) & (batch.roles != Role.SYSTEM)
    columns = torch.arange(batch.width, device=batch.ids.device)
    if text in ("last_prompt", "newest"):
        return (columns == (columns * batch.mask).amax(-1, keepdim=True)) & batch.mask
    if text == "after_instruction":
        return columns >= batch.instruction_end[:, None]
    if text.startswith("first:"):
        return _first(text, batch)
    if text.startswith("index:"):
        return _indexed(text, batch)
    if text.startswith("span:"):
        return _span(text.removeprefix("span:"), batch)
    return torch.zeros_like(batch.mask)


def _first(text: str, batch: Batch) -> torch.Tensor:
    number, _, role = text.removeprefix("first:").partition("@")
    among = batch.mask & (batch.roles == ROLE_NAMES[role]) if role else batch.mask
    selected = among & (among.long().cumsum(-1) <= int(number))
    short = selected.sum(-1) < int(number)
    if bool(short.any()):
        row = int(short.long().argmax())
        raise BadInput(
            f"positions '{text}' need {number} tokens, but prompt {row} has {int(selected[row].sum())}: "
            "use longer prompts or a shorter edit"
        )
    return selected


def _indexed(text: str, batch: Batch) -> torch.Tensor:
    import torch

    ordinal = batch.mask.long().cumsum(-1) - 1
    length = batch.mask.sum(-1, keepdim=True)
    selected = torch.zeros_like(batch.mask)
    for index in map(int, text.removeprefix("index:").split(",")):
        selected |= ordinal == (index if index >= 0 else length + index)
    return selected


def _span(wanted: str, batch: Batch) -> torch.Tensor:
    import torch

    selected = torch.zeros_like(batch.mask)
    for row, text in enumerate(batch.texts):
        # Looking ahead finds places that overlap each other too.
        found = [match.start() for match in re.finditer(f"(?={re.escape(wanted)})", text)]
        if not found:
            raise BadInput(f"positions {'span:' + wanted!r}: prompt {row} does not contain this text")
        starts, ends = batch.offsets[row, :, 0], batch.offsets[row, :, 1]
        for start in found:
            selected[row] |= (starts < start + len(wanted)) & (ends > start)
    return selected
