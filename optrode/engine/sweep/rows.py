"""Another patch in each row of one batch."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...host import Host, SiteInfo
from ..axes import axes_of
from ..editing.actions import EditAction
from ..editing.receipt import SiteReceipt
from ..editing.session import Session
from ..places import Forward

# One entry for each axis after the first: a number, columns, or everything.
Selection = tuple[Any, ...]


class RowSession(Session):
    """Writes given values into given rows, and nothing else: no strengths, no receipts.

    `width` is the number of columns of the whole input; None where it has no tokens.
    """

    def __init__(self, host: Host, width: int | None):
        super().__init__(host)
        self.width = width
        self.writes: dict[str, list[tuple[int, Selection, Tensor]]] = {}

    def write(self, site: SiteInfo, row: int, selection: Selection, donor: Tensor) -> None:
        """In `row`, what `selection` picks at `site` becomes what it picks of `donor`, the site's value of one row."""
        if site.address not in self.writes:
            self.writes[site.address] = []
            self.add_edit(site, _nothing, SiteReceipt(site.address))
        self.writes[site.address].append((row, selection, donor))

    def expect(self, rows: int, start: int, count: int) -> None:
        """Blocks are going to be run directly, on this many rows of this many columns from `start` on."""
        self.forward = Forward(None, rows, start, count)

    def _changed(self, action: EditAction, h: Tensor, chosen: Tensor | None = None) -> Tensor:
        new = h.clone()
        for row, selection, donor in self.writes[action.site.address]:
            put(new, action.site, row, selection, donor, self.width)
        return new


def put(value: Tensor, site: SiteInfo, row: int, selection: Selection, donor: Tensor, width: int | None) -> None:
    """Write into one row of `value`, the activation of a site, whose columns are the last ones of `width`."""
    new = donor[selection].to(value.device, value.dtype)
    if width is not None and axes_of(site, value.dim())[1:2] == ("token",) and not isinstance(selection[0], slice):
        selection = (selection[0] - (width - value.shape[1]), *selection[1:])
    place = (row, *selection)
    value[place] = new


def _nothing(h: Tensor, places: Any) -> Tensor:
    return h
