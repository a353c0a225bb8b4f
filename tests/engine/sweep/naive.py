"""The slow way, by hand: one whole forward of the network for every single patch."""

from __future__ import annotations

from typing import Any

from torch import Tensor

import optrode as op
from optrode import edits


def naive(model: op.Model, base: Any, donor: Tensor, site: str, selection: tuple, target: str) -> Tensor:
    """The whole of `target` where what `selection` picks at `site` is that of `donor`, [token, ...]; one row.

    `base` is what `model.read` takes, `selection` has one entry for each axis after the first.
    """

    def patch(rows: Tensor) -> Tensor:
        new = rows.clone().reshape(donor.shape)
        new[selection] = donor[selection].to(new.dtype)
        return new.reshape(rows.shape)

    with model.edited(edits.function(site, patch)):
        return model.read(base, target)[target][0]
