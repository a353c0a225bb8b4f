"""Which examples make up a shard, and which of them go through the network together.

Both depend on the data and the settings alone and never on where an earlier run was stopped, since the numbers of a
forward depend, in their last bits, on what else is in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .examples import Cursor, Example


@dataclass(frozen=True)
class ShardPlan:
    """One shard: its examples in the order of the data, and its forwards as lists of their numbers.

    Rows of example i begin at `first_row[i]`; a shard without an example after it `ends` the store.
    """

    start: Cursor
    next: Cursor
    examples: list[Example]
    first_row: list[int]
    forwards: list[list[int]]
    ends: bool

    @property
    def rows(self) -> int:
        return self.first_row[-1] + self.examples[-1].rows

    @property
    def tokens(self) -> int:
        """Places that run through the network, padding not counted."""
        return sum(example.length for example in self.examples)

    def destinations(self, example: int) -> Tensor:
        """The rows of the shard that the kept places of an example go to."""
        return torch.arange(self.first_row[example], self.first_row[example] + self.examples[example].rows)


class Coming:
    """Examples to come; one that was taken and did not fit can be put back."""

    def __init__(self, examples: Iterator[Example]):
        self._examples = examples
        self._back: Example | None = None

    def take(self) -> Example | None:
        """The next example, or None where none is left."""
        if self._back is not None:
            example, self._back = self._back, None
            return example
        return next(self._examples, None)

    def put_back(self, example: Example) -> None:
        self._back = example


def next_shard(
    coming: Coming, start: Cursor, shard_rows: int, most: int | None, tokens_per_forward: int
) -> ShardPlan | None:
    """The shard that begins with the next example.

    A shard takes whole examples, up to `shard_rows` rows but at least one example; the last one is cut where the store
    has got `most` rows. None where no example is left.
    """
    chosen: list[Example] = []
    first_row: list[int] = []
    rows, ends = 0, True
    while most is None or rows < most:
        example = coming.take()
        if example is None:
            break
        if chosen and rows + example.rows > shard_rows:
            coming.put_back(example)
            ends = False
            break
        if most is not None and rows + example.rows > most:
            example = example.cut(most - rows)
        chosen.append(example)
        first_row.append(rows)
        rows += example.rows
    if not chosen:
        return None
    lengths = torch.tensor([example.length for example in chosen])
    forwards = cut_by_length(lengths, tokens_per_forward)
    return ShardPlan(start, chosen[-1].next, chosen, first_row, forwards, ends)


def cut_by_length(lengths: Tensor, tokens: int) -> list[list[int]]:
    """Numbers of the examples of each forward: sorted by length, at most `tokens` places, padding included.

    >>> cut_by_length(torch.tensor([5, 2, 5, 2]), 10)
    [[1, 3], [0, 2]]
    """
    order = lengths.argsort(stable=True).tolist()
    forwards: list[list[int]] = []
    for number in order:
        if forwards and int(lengths[number]) * (len(forwards[-1]) + 1) <= tokens:
            forwards[-1].append(number)
        else:
            forwards.append([number])
    return forwards
