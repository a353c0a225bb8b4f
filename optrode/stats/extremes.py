"""The largest and the smallest value of each unit, and the token at which it stands."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .accumulator import Accumulator
from .rows import WHERE, Rows


class Extremes(Accumulator):
    """Largest and smallest value of each unit with their examples. Equal in any order.

    `highest_where` and `lowest_where` are [*shape, 4]: document, example, position and token. Of equal values the one
    of the first example counts, and in it the first position.

    Costs two passes over the values, 0.3 nanoseconds each; 80 bytes a unit.

    >>> extremes = Extremes(1)
    >>> where = torch.tensor([[0, 0, 0, 5], [0, 0, 1, 6], [0, 0, 2, 7]])
    >>> extremes.update(torch.tensor([[3.0], [9.0], [9.0]]), where=where)
    >>> extremes.result()["highest"].item(), extremes.result()["highest_where"].tolist()
    (9.0, [[0, 0, 1, 6]])
    """

    kind = "extremes"

    def __init__(self, shape: int | Sequence[int] = ()):
        super().__init__(shape)
        self._high, self._low = _One(self.units), _One(self.units)

    def result(self) -> dict[str, Tensor]:
        sides = {"highest": (self._high, 1.0), "lowest": (self._low, -1.0)}
        found = {
            name: self._shaped(np.where(one.known, sign * one.value + 0.0, np.nan))
            for name, (one, sign) in sides.items()
        }
        return found | {f"{name}_where": self._where(one.where) for name, (one, _) in sides.items()}

    def _add(self, rows: Rows) -> None:
        # Adding zero makes -0.0, which is equal to 0.0, the same to the last bit.
        self._high.add(rows.highest.numpy() + 0.0, rows, 1.0)
        self._low.add(0.0 - rows.lowest.numpy(), rows, -1.0)

    def _merge(self, other: Extremes) -> None:
        for mine, theirs in ((self._high, other._high), (self._low, other._low)):
            mine.take(np.arange(self.units), theirs.value, theirs.where, theirs.known)

    def _tensors(self) -> dict[str, Tensor]:
        return {
            f"{name}_{part}": torch.from_numpy(getattr(one, part).copy())
            for name, one in (("high", self._high), ("low", self._low)) for part in ("value", "where", "known")
        }  # fmt: skip

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        for name, one in (("high", self._high), ("low", self._low)):
            for part in ("value", "where", "known"):
                getattr(one, part)[...] = tensors[f"{name}_{part}"].numpy()


class _One:
    """The largest value of each unit, and where it stands."""

    def __init__(self, units: int):
        self.value = np.full(units, -np.inf, np.float32)
        self.where = np.full((units, len(WHERE)), -1, np.int64)
        self.known = np.zeros(units, bool)

    def add(self, largest: np.ndarray, rows: Rows, sign: float) -> None:
        """Rows whose largest values (with their sign turned, for `sign` -1) are known already."""
        larger = (largest > self.value) | ~self.known
        equal = (largest == self.value) & self.known
        if equal.any():
            # Only a row that comes before the one that is known can take its place.
            first = first_place(rows.where)
            equal &= earlier(np.broadcast_to(rows.where[first], self.where.shape), self.where)
        units = np.flatnonzero(larger | equal)
        if not len(units):
            return
        chosen = _rows_of(rows, units, sign * largest[units])
        self.take(units, largest[units], rows.where[chosen], np.ones(len(units), bool))

    def take(self, units: np.ndarray, values: np.ndarray, where: np.ndarray, known: np.ndarray) -> None:
        own = self.value[units]
        better = known & (~self.known[units] | (values > own) | ((values == own) & earlier(where, self.where[units])))
        chosen = units[better]
        self.value[chosen], self.where[chosen], self.known[chosen] = values[better], where[better], True


def _rows_of(rows: Rows, units: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The row at which each unit has a value that it is known to have; the first in order where there are several."""
    every = len(units) == rows.units
    some = rows if every else Rows(rows.values[:, torch.from_numpy(units)])
    target, done = torch.from_numpy(values), 0
    count, place = torch.zeros(len(units), dtype=torch.float64), torch.zeros(len(units), dtype=torch.float64)
    for block in some.blocks():
        # Comparisons into float32, and sums of what they give, are far faster than looking for what is true.
        hits = torch.eq(block, target, out=torch.empty_like(block))
        found_here = hits.sum(0)
        count += found_here
        place += torch.arange(len(block), dtype=torch.float32) @ hits + done * found_here.double()
        done += len(block)
    found = place.long().numpy()
    ties = np.flatnonzero(count.numpy() > 1)
    if len(ties):
        hits = some.values[:, torch.from_numpy(ties)] == target[torch.from_numpy(ties)]
        row, column = hits.nonzero().numpy().T
        order = np.lexsort((*sort_keys(rows.where[row]), column))
        _, firsts = np.unique(column[order], return_index=True)
        found[ties] = row[order][firsts]
    return found


# Of equal values the one with the least of these stands: example, position, then what tells the rest apart.
_ORDER = (1, 2, 0, 3)


def sort_keys(where: np.ndarray) -> tuple[np.ndarray, ...]:
    """Keys for `numpy.lexsort`, which takes the most important one last."""
    return tuple(where[:, column] for column in reversed(_ORDER))


def earlier(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Whether a row stands before another, bool [row]."""
    before = np.zeros(len(first), bool)
    same = np.ones(len(first), bool)
    for column in _ORDER:
        before |= same & (first[:, column] < second[:, column])
        same &= first[:, column] == second[:, column]
    return before


def first_place(where: np.ndarray) -> int:
    """The number of the row that stands before all others."""
    return int(np.lexsort(sort_keys(where))[0])
