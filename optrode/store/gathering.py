"""Rows of a site from all shards at once.

Gathering shard by shard costs a step for each shard that a batch touches, and a second copy into the batch's order. But
mapped shards are memory of this process, so that one array over the addresses from the lowest to the highest lets numpy
copy each row from where it is. Only addresses within the shards' rows are ever read.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .layout import StoredSite
from .shards import Shard


class _Memory:
    """Memory from an address on, as an array of overlapping items that begin at each byte."""

    def __init__(self, address: int, size: int, item: int):
        self.__array_interface__ = {
            "version": 3, "data": (address, True), "shape": (size,), "strides": (1,), "typestr": f"|V{item}",
        }  # fmt: skip


class MappedRows:
    """Rows of one site of mapped shards. Shards are mapped when a row of theirs is first wanted."""

    def __init__(self, shards: Sequence[Shard], site: StoredSite):
        self._shards, self._site = shards, site
        self._first = np.array([shard.first_row for shard in shards], np.int64)
        self._address = np.zeros(len(shards), np.int64)
        self._base = 0
        self._memory = np.empty(0, f"V{site.row_bytes}")

    def gather(self, index: np.ndarray, owner: np.ndarray) -> Tensor:
        """Rows as they are stored, [row, ...]; `owner` is the number of each one's shard in the list of shards."""
        start = self._address[owner]
        if not start.all():
            self._map(np.unique(owner))
            start = self._address[owner]
        places = start + (index - self._first[owner]) * self._site.row_bytes
        rows = self._memory[places - self._base]
        # An array of items has no dtype that torch knows.
        return torch.from_numpy(rows.view(np.uint8)).view(self._site.kept).view(len(index), *self._site.shape)

    def _map(self, owners: np.ndarray) -> None:
        for number in owners.tolist():
            whole = self._shards[number].whole(self._site.address)
            assert whole is not None
            self._address[number] = whole.data_ptr()
        known = np.flatnonzero(self._address)
        ends = [self._address[number] + self._shards[number].rows * self._site.row_bytes for number in known.tolist()]
        self._base = int(self._address[known].min())
        self._memory = np.asarray(_Memory(self._base, int(max(ends)) - self._base, self._site.row_bytes))
