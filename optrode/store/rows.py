"""The rows of one site, as an array is asked for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import BadInput
from .layout import StoredSite

if TYPE_CHECKING:
    from .opened import Store

Rows = slice | Sequence[int] | Tensor | np.ndarray


class SiteRows(Dataset):
    """One site of a store: `rows[5]` is [...], `rows[10:20]` and `rows[[3, 1]]` are [row, ...]; all are copies.

    It is a data set as `torch.utils.data.DataLoader` wants it, with rows as items.
    """

    def __init__(self, store: Store, site: StoredSite):
        self.store, self.site = store, site

    def __len__(self) -> int:
        return len(self.store)

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self.store), *self.site.shape))

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of what is read."""
        return self.site.read_dtype

    def __getitem__(self, rows: int | Rows) -> Tensor:
        if isinstance(rows, int | np.integer):
            return self.store.read(self.site.address, [int(rows)])[0]
        return self.store.read(self.site.address, rows)

    def __getitems__(self, rows: list[int]) -> list[Tensor]:
        """What a `DataLoader` asks for: all rows of a batch at once."""
        return list(self.store.read(self.site.address, rows))

    def __repr__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{self.site.address}: [{', '.join(map(str, self.shape))}] {dtype}"


def as_index(rows: Rows, count: int) -> Tensor:
    """Row numbers as int64 [row]. Raises `IndexError` for one that is not there, `BadInput` for what is no number."""
    if isinstance(rows, slice):
        return torch.from_numpy(np.arange(*rows.indices(count), dtype=np.int64))
    index = torch.as_tensor(np.asarray(rows) if not isinstance(rows, Tensor) else rows)
    if index.dtype == torch.bool and index.shape == (count,):
        return index.nonzero().flatten()
    if not index.numel():
        return torch.empty(0, dtype=torch.long)
    if index.dim() != 1 or index.dtype not in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
        raise BadInput(f"rows must be a slice, or a list of numbers, or a mask of {count} entries")
    index = index.long()
    index = torch.where(index < 0, index + count, index)
    if bool(((index < 0) | (index >= count)).any()):
        raise IndexError(f"a store of {count} rows has no row {int(index[(index < 0) | (index >= count)][0])}")
    return index
