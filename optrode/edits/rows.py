"""Another edit for each row of a batch: many strengths, directions or controls in one pass.

An edit by row holds one site edit, or none, for each prompt, in the order in which the prompts are given. Wherever the
engine puts a prompt, sorted by length, in another forward, at a decode step, its own edit goes with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ..errors import BadInput, NotSupported
from ..positions import Positions
from .base import Change, Edit, Provenance, SiteEdit, SiteEditBase
from .row_changes import RowsChange

if TYPE_CHECKING:
    from torch import Tensor

    from ..batches import Batch
    from .conditions import Condition


@dataclass(frozen=True, eq=False)
class RowsEdit(SiteEditBase):
    """One edit, or None, for each prompt of a batch. Made by `by_row`."""

    rows: tuple[SiteEditBase | None, ...]

    def __mul__(self, strength: float) -> RowsEdit:
        return self._each(lambda part: part * strength)

    def patterns(self) -> list[str]:
        return list(dict.fromkeys(pattern for _, part in self.parts() for pattern in part.patterns()))

    def leaves(self) -> list[SiteEdit]:
        return [leaf for _, part in self.parts() for leaf in part.leaves()]

    def watches(self) -> list[Condition]:
        return [one for part in {id(part): part for _, part in self.parts()}.values() for one in part.watches()]

    def parts(self) -> list[tuple[int, SiteEditBase]]:
        """The edits with the numbers of their prompts."""
        return [(number, part) for number, part in enumerate(self.rows) if part is not None]

    def with_provenance(self, provenance: Provenance) -> RowsEdit:
        return self._each(lambda part: part.with_provenance(provenance))

    def tensors(self) -> dict[str, Tensor]:
        return {f"{number}.{name}": value for number, part in self.parts() for name, value in part.tensors().items()}

    def with_tensors(self, tensors: dict[str, Tensor]) -> RowsEdit:
        own: dict[int, dict[str, Tensor]] = {number: {} for number, _ in self.parts()}
        for name, value in tensors.items():
            number, _, rest = name.partition(".")
            own[int(number)][rest] = value
        found = {number: part.with_tensors(own[number]) for number, part in self.parts()}
        return RowsEdit(tuple(found.get(number) for number in range(len(self.rows))))

    def constrained(self) -> RowsEdit:
        return self._each(lambda part: part.constrained())

    def at(self, address: str, matches: Callable[[str, str], bool]) -> Change | None:
        own: dict[int, Change] = {}
        shared: dict[int, Change | None] = {}
        for number, part in self.parts():
            if id(part) not in shared:
                shared[id(part)] = part.at(address, matches)
            change = shared[id(part)]
            if change is not None:
                own[number] = change
        return RowsChange(self, own) if own else None

    def _each(self, function: Callable[[SiteEditBase], Any]) -> RowsEdit:
        """Every edit changed; rows that share one go on sharing it."""
        found = {id(part): function(part) for _, part in self.parts()}
        return RowsEdit(tuple(None if part is None else found[id(part)] for part in self.rows))


def by_row(rows: Iterable[SiteEditBase | None]) -> RowsEdit:
    """One edit for each prompt of a batch, in the order of the prompts; None leaves a prompt alone.

    Works in reads, writing and forced choice, and combines with other edits by `*`, `+` and `>>`. Rows are as many as
    prompts, or rows of a bare tensor: `BadInput` where they are not. Rows whose edits differ only in numbers (the same
    operator, such as `add`, at the same positions) are edited in one step.

    A dose curve in one pass: `by_row([edit * strength for strength in strengths])`, with the prompt repeated.
    Raises `BadInput` without any row, `NotSupported` for edits that are no site edits or are by row themselves.
    """
    listed = tuple(rows)
    if not listed:
        raise BadInput("by_row got no row: give one edit, or None, for each prompt")
    for number, part in enumerate(listed):
        if part is not None and not isinstance(part, SiteEditBase):
            what = f"a {part.kind} edit" if isinstance(part, Edit) else type(part).__name__
            raise NotSupported(f"row {number} of by_row is {what}: rows take site edits or None")
        if part is not None and any(True for _ in rows_edits(part)):
            raise NotSupported(f"row {number} of by_row is by row itself: a row belongs to one prompt")
    return RowsEdit(listed)


def rows_edits(edit: Edit) -> Iterator[RowsEdit]:
    """The edits by row that an edit is made of."""
    if isinstance(edit, RowsEdit):
        yield edit
        return
    for part in getattr(edit, "parts", ()):
        yield from rows_edits(part)


# Positions -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RowPositions:
    """A selection in the rows of one prompt alone."""

    number: int
    positions: Positions

    def in_prompt(self, batch: Batch) -> Tensor:
        """Which prompt tokens are selected: bool [example, token]."""
        rows = [row for row, number in enumerate(batch.row_numbers) if number == self.number]
        selected = torch.zeros_like(batch.mask)
        if rows:
            selected[rows] = self.positions.in_prompt(batch.only(rows))
        return selected


def selections(edit: SiteEditBase) -> list[Positions | RowPositions]:
    """Where an edit acts or reads: the positions of its leaves that have a strength, and of its conditions, each in its
    own rows."""
    if isinstance(edit, RowsEdit):
        return [RowPositions(number, chosen) for number, part in edit.parts() for chosen in _own_selections(part)]
    parts = getattr(edit, "parts", None)
    if parts is None or getattr(edit, "strength", 1.0) == 0:
        return list(_own_selections(edit))
    return [positions for part in parts for positions in selections(part)]


def _own_selections(edit: SiteEditBase) -> list[Positions]:
    acting = [leaf.positions for leaf in edit.leaves() if leaf.strength]
    return acting + [one.positions for one in edit.watches()]
