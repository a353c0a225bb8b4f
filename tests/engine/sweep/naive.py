"""The slow way, by hand: one whole forward of the network for every single patch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
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


def naive_map(
    model: op.Model, base: Any, donor: Any, sites: list[str], selections: list[tuple], target: str, metric: Any
) -> np.ndarray:
    """`metric(whole target)` for every site and selection, [site, selection]."""
    values = model.read(donor, sites)
    found = [
        [float(metric(naive(model, base, values[site][0], site, selection, target))) for selection in selections]
        for site in sites
    ]
    return np.array(found)


def close(got: Any, wanted: Any, scale: float = 1.0) -> bool:
    """Within float tolerance of the size of what is measured."""
    return bool(np.allclose(got, wanted, rtol=2e-4, atol=2e-4 * scale))


def first_selection(where: Any, dims: int, axis: int = 0) -> tuple:
    """Everything but one axis, where `where` is picked."""
    return tuple(where if index == axis else slice(None) for index in range(dims))


__all__ = ["close", "first_selection", "naive", "naive_map", "torch"]
