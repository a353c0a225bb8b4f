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
    """

    ids: torch.Tensor
    mask: torch.Tensor
    roles: torch.Tensor
    special: torch.Tensor
    instruction_end: torch.Tensor
    texts: tuple[str, ...]
    offsets: torch.Tensor
    extra: dict[str, torch.Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.ids.shape[0]

    @property
    def width(self) -> int:
        """Number of columns, pads included."""
        return self.ids.shape[1]

    @property
    def position_ids(self) -> torch.Tensor:
        """Position of each token in its own row, [example, token] int64; 0 at pads."""
        return (self.mask.long().cumsum(-1) - 1).clamp(min=0)

    def to(self, device: torch.device | str) -> Batch:
        moved = {
            name: getattr(self, name).to(device)
            for name in ("ids", "mask", "roles", "special", "instruction_end", "offsets")
        }
        return Batch(**moved, texts=self.texts, extra={name: value.to(device) for name, value in self.extra.items()})

    def pick(self, rows: Sequence[int] | torch.Tensor) -> Batch:
        """Some examples, with the columns that are padding in all of them cut off."""
        import torch

        rows = torch.as_tensor(rows, device=self.ids.device)
        used = self.mask[rows].any(0).nonzero().flatten()
        columns = slice(int(used[0]), int(used[-1]) + 1)
        return Batch(
            ids=self.ids[rows, columns],
            mask=self.mask[rows, columns],
            roles=self.roles[rows, columns],
            special=self.special[rows, columns],
            instruction_end=self.instruction_end[rows] - columns.start,
            texts=tuple(self.texts[row] for row in rows.tolist()),
            offsets=self.offsets[rows, columns],
            extra={name: value[rows] for name, value in self.extra.items()},
        )
