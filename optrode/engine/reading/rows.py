"""Where the rows of a forward belong in the results of a whole batch."""

from __future__ import annotations

import torch
from torch import Tensor

from ...batches import Batch
from ..axes import has_tokens
from .request import Request


class Rows:
    """Columns and positions of a batch by row, for results that come in parts."""

    def __init__(self, batch: Batch, request: Request):
        self.batch = batch
        places = request.places(batch)
        self.count = len(places) if places is not None else 0
        self.by_position = {site.address for site in request.sites if places is not None and has_tokens(site)}
        # The first position of each row, and one more entry for the end.
        ends = torch.zeros(len(batch) + 1, dtype=torch.long)
        if places is not None:
            ends[1:] = torch.bincount(places[:, 0].cpu(), minlength=len(batch)).cumsum(0)
        self._ends = ends.tolist()

    def positions(self, row: int) -> range:
        """The positions of one row in the whole."""
        return range(self._ends[row], self._ends[row + 1])

    def first_column(self, rows: Tensor) -> int:
        """A part is narrower than the whole; its tokens stand at the columns that are no padding."""
        return int(self.batch.mask[rows.to(self.batch.mask.device)].any(0).long().argmax())


def nothing(site: str) -> float:
    """What stands where a part had no column: padding, which nobody looks at."""
    return -torch.inf if site.endswith(".scores") else 0.0
