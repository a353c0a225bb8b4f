"""How many rows were counted, and how many left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .accumulator import Accumulator
from .rows import Rows


class Count(Accumulator):
    """Rows that were counted and rows that were skipped since they held NaN or infinity. Equal in any order.

    >>> counted = Count(2)
    >>> counted.update(torch.tensor([[1.0, 2.0], [3.0, float("nan")], [5.0, 6.0]]))
    >>> counted.result()
    {'count': tensor(2), 'skipped': tensor(1)}
    """

    kind = "count"

    @classmethod
    def least(cls, shape: Sequence[int], **settings: Any) -> int:
        return 0

    def result(self) -> dict[str, Tensor]:
        return {"count": torch.tensor(self.count), "skipped": torch.tensor(self.skipped)}

    def _add(self, rows: Rows) -> None: ...

    def _merge(self, other: Count) -> None: ...

    def _tensors(self) -> dict[str, Tensor]:
        return {}

    def _restore(self, tensors: dict[str, Tensor]) -> None: ...
