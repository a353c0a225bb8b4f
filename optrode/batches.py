"""A batch of tokenised prompts in which every token knows its role.

Roles are resolved once, when the text is tokenised, from the chat template and the tokenizer's own offsets; the engine
then carries them through padding and the KV cache. Batches of decoders are padded on the left, so that the last column
is the last prompt token of every row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class Role(IntEnum):
    """What a token is for. `TEMPLATE` is the chat template's own text, `TEXT` a prompt used without template.

    `IMAGE` tokens stand for the patches of a picture.
    """

    PAD = 0
    TEMPLATE = 1
    SYSTEM = 2
    USER = 3
    ASSISTANT = 4
    TEXT = 5
    IMAGE = 6


@dataclass(frozen=True)
class Batch:
    """Token ids with roles.

    Shapes: `ids`, `mask`, `roles`, `special` are [example, token] (int64, bool, int8, bool); `instruction_end` is
    [example]: the column of the first token after the last user turn (the number of columns where there is none after).
    `offsets` holds the character span of each token in `texts`, [example, token, 2].

    Rows that were picked out of a batch keep its numbers: `numbers[row]` is the place of the row's prompt among the
    `total` that were given, which is what an edit by row goes by. None: the rows are the prompts, in order.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    roles: torch.Tensor
    special: torch.Tensor
    instruction_end: torch.Tensor
    texts: tuple[str, ...]
    offsets: torch.Tensor
    extra: dict[str, torch.Tensor] = field(default_factory=dict)
    numbers: tuple[int, ...] | None = None
    total: int | None = None
    _parts: dict[tuple[int, ...], Batch] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return self.ids.shape[0]

    @property
    def width(self) -> int:
        """Number of columns, pads included."""
        return self.ids.shape[1]

    @property
    def row_numbers(self) -> tuple[int, ...]:
        """The number of each row's prompt among those that were given."""
        return self.numbers if self.numbers is not None else tuple(range(len(self)))

    @property
    def prompts(self) -> int:
        """How many prompts were given, of which these rows may be a part."""
        return self.total if self.total is not None else len(self)

    @property
    def position_ids(self) -> torch.Tensor:
        """Position of each token in its own row, [example, token] int64; 0 at pads."""
        return (self.mask.long().cumsum(-1) - 1).clamp(min=0)

    def to(self, device: torch.device | str) -> Batch:
        moved = {
            name: getattr(self, name).to(device)
            for name in ("ids", "mask", "roles", "special", "instruction_end", "offsets")
        }
        extra = {name: value.to(device) for name, value in self.extra.items()}
        return Batch(**moved, texts=self.texts, extra=extra, numbers=self.numbers, total=self.total)

    def pick(self, rows: Sequence[int] | torch.Tensor) -> Batch:
        """Some examples, with the columns that are padding in all of them cut off. They keep their `row_numbers`."""
        import torch

        used = self.mask[torch.as_tensor(rows, device=self.ids.device)].any(0).nonzero().flatten()
        return self.only(rows, slice(int(used[0]), int(used[-1]) + 1))

    def part(self, rows: tuple[int, ...]) -> Batch:
        """`only(rows)`, made once: an edit by row asks for the same rows at every site of every forward."""
        if rows not in self._parts:
            self._parts[rows] = self.only(rows)
        return self._parts[rows]

    def only(self, rows: Sequence[int] | torch.Tensor, columns: slice | None = None) -> Batch:
        """Some examples with some columns; all of them by default, so that columns mean the same as in the whole."""
        import torch

        rows = torch.as_tensor(rows, device=self.ids.device)
        columns = columns if columns is not None else slice(0, self.width)
        numbers = self.row_numbers
        return Batch(
            ids=self.ids[rows, columns],
            mask=self.mask[rows, columns],
            roles=self.roles[rows, columns],
            special=self.special[rows, columns],
            instruction_end=self.instruction_end[rows] - columns.start,
            texts=tuple(self.texts[row] for row in rows.tolist()),
            offsets=self.offsets[rows, columns],
            extra={name: value[rows] for name, value in self.extra.items()},
            numbers=tuple(numbers[row] for row in rows.tolist()),
            total=self.prompts,
        )
