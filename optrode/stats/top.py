"""The examples at which each unit is largest."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import BadInput
from .accumulator import Accumulator
from .extremes import sort_keys
from .rows import WHERE, Rows


class Top(Accumulator):
    """The `k` largest values of each unit with their examples, largest first. Equal in any order.

    `top` is [k, *shape], `top_where` [k, *shape, 4]: document, example, position and token. Where there were fewer
    rows, the rest is NaN and -1. Of equal values those of the first examples count.

    Costs a few passes over the values, and a look at those above the least that is kept, which soon are few; 36 x k
    bytes a unit.

    >>> top = Top(1, k=2)
    >>> top.update(torch.tensor([[3.0], [9.0], [5.0]]))
    >>> top.result()["top"].flatten().tolist()
    [9.0, 5.0]
    """

    kind = "top"
    settings = ("k",)

    def __init__(self, shape: int | Sequence[int] = (), k: int = 10):
        super().__init__(shape)
        if k < 1:
            raise BadInput(f"the largest {k} values are none: ask for at least one")
        self.k = k
        self._values = np.full((k, self.units), -np.inf, np.float32)
        self._places = np.full((k, self.units, len(WHERE)), -1, np.int64)
        self._kept = 0

    @classmethod
    def least(cls, shape: Sequence[int], **settings: Any) -> int:
        return settings.get("k", 1) * prod(shape)

    def result(self) -> dict[str, Tensor]:
        known = (np.arange(self.k) < self._kept)[:, None]
        values = np.where(known, self._values, np.nan)
        return {"top": self._shaped(values, self.k), "top_where": self._where(self._places, (self.k,))}

    def _add(self, rows: Rows) -> None:
        least = torch.from_numpy(self._values[-1])
        if self._kept == self.k and bool((rows.highest < least).all()):
            return
        if len(rows) > self.k:
            # What is not among the largest of these rows is not among the largest of all.
            least = torch.maximum(least, rows.values.topk(self.k, dim=0).values[-1])
        row, unit = (part.numpy() for part in (rows.values >= least).nonzero(as_tuple=True))
        row, unit = self._without_ties(rows, row, unit)
        # Adding zero makes -0.0, which is equal to 0.0, the same to the last bit.
        self._join(rows.values.numpy()[row, unit] + 0.0, rows.where[row], unit, len(rows))

    def _without_ties(self, rows: Rows, row: np.ndarray, unit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Candidates, of which a unit that is the same at many tokens has no more than `k`."""
        if len(row) <= 4 * self.k * self.units:
            return row, unit
        order = np.lexsort((*sort_keys(rows.where[row]), -rows.values.numpy()[row, unit], unit))
        chosen = order[_rank(unit[order]) < self.k]
        return row[chosen], unit[chosen]

    def _merge(self, other: Top) -> None:
        slot, unit = (part.reshape(-1) for part in np.indices((other._kept, self.units)))
        self._join(other._values[slot, unit], other._places[slot, unit], unit, other._kept)

    def _join(self, values: np.ndarray, where: np.ndarray, unit: np.ndarray, rows: int) -> None:
        """Keep the largest of what is kept and of some more values."""
        touched, unit = np.unique(unit, return_inverse=True)
        slot, own = (part.reshape(-1) for part in np.indices((self._kept, len(touched))))
        values = np.concatenate([self._values[slot, touched[own]], values])
        where = np.concatenate([self._places[slot, touched[own]], where])
        unit = np.concatenate([own, unit.reshape(-1)])
        order = np.lexsort((*sort_keys(where), -values, unit))
        rank = _rank(unit[order])
        chosen, rank = order[rank < self.k], rank[rank < self.k]
        self._values[rank, touched[unit[chosen]]] = values[chosen]
        self._places[rank, touched[unit[chosen]]] = where[chosen]
        self._kept = min(self.k, self._kept + rows)

    def _tensors(self) -> dict[str, Tensor]:
        return {"values": torch.from_numpy(self._values.copy()), "places": torch.from_numpy(self._places.copy())}

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        self._values[...], self._places[...] = tensors["values"].numpy(), tensors["places"].numpy()
        self._kept = min(self.k, self.count)


def _rank(groups: np.ndarray) -> np.ndarray:
    """The place of each entry within its group, where equal groups stand together."""
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    return np.arange(len(groups)) - np.repeat(starts, np.diff(starts, append=len(groups)))
