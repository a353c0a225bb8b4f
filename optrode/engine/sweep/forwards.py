"""Whole forwards with another patch in each row: slower than the frontier, and right for every network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from ...host import Host
from .cells import Cell
from .examples import Example, Target, repeated
from .record import run_tapped
from .rows import RowSession


def forwards(
    host: Host, example: Example, target: Target, cells: Sequence[Cell], donors: dict[str, Tensor], tokens: int
) -> Iterator[tuple[list[int], Tensor]]:
    """Numbers of cells and the target of each, [cell, position, ...], in forwards of at most `tokens` tokens.

    Edits of the context are active, and the patch comes after them.
    """
    size = max(1, tokens // (example.width or 1))
    for begin in range(0, len(cells), size):
        numbers = list(range(begin, min(begin + size, len(cells))))
        session = RowSession(host, example.width)
        for row, number in enumerate(numbers):
            cell = cells[number]
            session.write(cell.site, row, cell.selection, donors[cell.site.address])
        taps, _ = run_tapped(host, repeated(example.base, len(numbers)), [], target, session=session)
        assert taps[-1].value is not None
        yield numbers, target.of(taps[-1].value, example.width)
