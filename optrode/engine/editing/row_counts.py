"""What an edit by row did to each prompt's row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class RowReceipt:
    """Counts of one prompt: positions that its own edit selected, and those of its row that came out different.

    `relative_change` is the mean of |new - old| / |old| over changed positions.
    """

    number: int
    selected: int
    changed: int
    relative_change: float


class RowCounts:
    """Sums over the calls at one site, [prompt] each, kept on the activation's device."""

    def __init__(self, numbers: tuple[int, ...], prompts: int):
        self.prompts = prompts
        self.ran: set[int] = set(numbers)
        self._selected: dict[object, Any] = {}
        self._changed: Any = 0
        self._total: Any = 0.0

    def add(self, numbers: tuple[int, ...], selected: dict[object, Tensor], changed: Tensor, relative: Tensor) -> None:
        """Count one call. `selected` holds masks by edit; all are [row, position, ...], rows as `numbers` says."""
        self.ran.update(numbers)
        for owner, mask in selected.items():
            self._selected[owner] = self._selected.get(owner, 0) + self._by_prompt(numbers, mask)
        self._changed = self._changed + self._by_prompt(numbers, changed)
        self._total = self._total + self._by_prompt(numbers, relative)

    def selected_by(self, owner: object, number: int) -> int:
        """How many positions of a prompt one of several edits by row selected."""
        found = self._selected.get(owner)
        return 0 if found is None else int(found[number])

    def of(self, number: int) -> tuple[int, int, float]:
        """Positions selected, positions changed, and the sum of relative changes of one prompt."""
        selected = max((int(found[number]) for found in self._selected.values()), default=0)
        return selected, int(self._changed[number]), float(self._total[number])

    def _by_prompt(self, numbers: tuple[int, ...], values: Tensor) -> Tensor:
        rows = values.reshape(len(numbers), -1).sum(-1, dtype=torch.float32)
        index = torch.tensor(numbers, device=rows.device)
        return torch.zeros(self.prompts, device=rows.device).index_add_(0, index, rows)


def row_receipts(counts: list[RowCounts]) -> dict[int, RowReceipt]:
    """The receipts of all prompts that ran, over several sites."""
    found = {}
    for number in sorted({number for count in counts for number in count.ran}):
        parts = [count.of(number) for count in counts if number in count.ran]
        selected, changed, total = (sum(column) for column in zip(*parts, strict=True))
        found[number] = RowReceipt(number, int(selected), int(changed), total / max(1, changed))
    return found
