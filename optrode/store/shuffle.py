"""Token-level shuffling with memory that does not grow with the store.

The order is a permutation of all rows that is computed and not stored. The number of a row is split into two halves,
and each half in turn is changed by a random table of the other: an alternating Feistel network, whose tables have about
as many entries as the square root of the rows. Where it leaves the range of the rows it is walked on. Any row can come
next to any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

if TYPE_CHECKING:
    from .opened import Store

_ROUNDS = 3


class Permutation:
    """A permutation of range(count), by seed and epoch.

    >>> sorted(Permutation(5, seed=1, epoch=0)(np.arange(5)).tolist())
    [0, 1, 2, 3, 4]
    """

    def __init__(self, count: int, seed: int, epoch: int):
        self.count = count
        bits = max(0, count - 1).bit_length()
        self._shift = (bits + 1) // 2
        self._low = (1 << self._shift) - 1
        high = 1 << (bits - self._shift)
        random = np.random.default_rng([seed, epoch])
        self._rounds = [
            (random.integers(0, high, self._low + 1), random.integers(0, self._low + 1, high)) for _ in range(_ROUNDS)
        ]

    def __call__(self, places: np.ndarray) -> np.ndarray:
        """What stands at `places`, int64 [place]. Costs some 20 nanoseconds each."""
        found = self._walk(places)
        outside = np.flatnonzero(found >= self.count)
        while len(outside):
            found[outside] = self._walk(found[outside])
            outside = outside[found[outside] >= self.count]
        return found

    def _walk(self, numbers: np.ndarray) -> np.ndarray:
        left, right = numbers >> self._shift, numbers & self._low
        for of_right, of_left in self._rounds:
            left = left ^ of_right[right]
            right = right ^ of_left[left]
        return (left << self._shift) | right


class Shuffled(IterableDataset):
    """Batches of rows in a random order, each row once an epoch: `for batch in store.shuffled(...)`.

    A batch is a dictionary of [row, ...] by site, with `row`, the numbers of the rows in the store. In a `DataLoader`
    with `batch_size=None` the batches are divided among the workers.
    """

    def __init__(self, store: Store, sites: list[str], batch_size: int, seed: int, epoch: int):
        self.store, self.sites, self.batch_size, self.seed, self.epoch = store, sites, batch_size, seed, epoch
        self._order = Permutation(len(store), seed, epoch)

    def __len__(self) -> int:
        """Number of batches; the last one may be smaller."""
        return -(-len(self.store) // self.batch_size)

    def at(self, epoch: int) -> Shuffled:
        """The same in the order of another epoch."""
        return Shuffled(self.store, self.sites, self.batch_size, self.seed, epoch)

    def rows(self, batch: int) -> Tensor:
        """The numbers of the rows of one batch: int64 [row]."""
        first = batch * self.batch_size
        places = np.arange(first, min(first + self.batch_size, len(self.store)))
        return torch.from_numpy(self._order(places))

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker is not None else (0, 1)
        for batch in range(first, len(self), step):
            rows = self.rows(batch)
            yield {**self.store.gather(self.sites, rows), "row": rows}
