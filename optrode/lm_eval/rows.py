"""Texts of a benchmark as rows of tokens that know their roles, so that an edit finds the positions it was made for.

What a model is asked to predict counts as what the assistant says: its tokens have the role `assistant`, and
`after_instruction` begins with them, or where the chat template puts it. What stands before has the roles that the chat
template gave it, or is plain text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..batches import Batch, Role
from ..encoding import Rendered, padded
from ..host import Host

# Where a token stands that no text was tokenised to.
NOWHERE = (0, 0)


@dataclass(frozen=True)
class Row:
    """Tokens of one text, of which the last `predicted` are to be predicted (none where text is to be written)."""

    ids: list[int]
    offsets: list[tuple[int, int]]
    rendered: Rendered
    predicted: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    def last(self, count: int) -> Row:
        """The last tokens alone."""
        if len(self.ids) <= count:
            return self
        return Row(self.ids[-count:], self.offsets[-count:], self.rendered, min(self.predicted, count))

    @property
    def given(self) -> Row:
        """What the network sees: the last token only tells whether it was predicted rightly."""
        return Row(self.ids[:-1], self.offsets[:-1], self.rendered)

    @property
    def targets(self) -> list[int]:
        return self.ids[len(self.ids) - self.predicted :]


def tokenised(host: Host, text: str, special: bool | None) -> tuple[list[int], list[tuple[int, int]]]:
    """Ids of a text and the characters that each stands for. `special=None`: with what the tokenizer adds by itself."""
    options: dict[str, Any] = {} if special is None else {"add_special_tokens": special}
    fast = bool(getattr(host.tokenizer, "is_fast", False))
    found = host.tokenizer(text, return_offsets_mapping=fast, **options)
    ids = list(found["input_ids"])
    return ids, [tuple(span) for span in found["offset_mapping"]] if fast else [NOWHERE] * len(ids)


def followed(context: Rendered, text: str) -> Rendered:
    """A context with a text after it that is to be predicted."""
    start = len(context.text)
    spans = (*context.spans, (start, start + len(text), Role.ASSISTANT))
    end = context.instruction_end if context.instruction_end is not None else start
    return Rendered(context.text + text, spans, end)


def plain(text: str, system: str = "") -> Rendered:
    """A context without template; `system` is what an edit puts in front of it."""
    front = f"{system}\n" if system else ""
    whole = front + text
    return Rendered(whole, ((0, len(front), Role.SYSTEM), (len(front), len(whole), Role.TEXT)), None)


def batch_of_rows(host: Host, rows: Sequence[Row]) -> Batch:
    """A padded batch of what the network sees."""
    return padded(host, [row.rendered for row in rows], [row.ids for row in rows], [row.offsets for row in rows])


def chunks(rows: Sequence[Row], rows_at_once: int | None, tokens: int) -> list[list[int]]:
    """Numbers of rows that run together: longest first, at most `tokens` with their padding, or `rows_at_once`."""
    order = sorted(range(len(rows)), key=lambda number: -len(rows[number]))
    found: list[list[int]] = []
    for number in order:
        room = rows_at_once or max(1, tokens // max(1, len(rows[found[-1][0]]) if found else 1))
        if not found or len(found[-1]) >= room:
            found.append([])
        found[-1].append(number)
    return found
