"""The KLL sketch: exact for few rows, within its rank error for many, merged as well."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optrode.errors import BadInput
from optrode.stats import Quantiles
from optrode.stats.quantiles import QUANTILES

from .conftest import KINDS, parts, unit


def rank_errors(found: np.ndarray, column: np.ndarray) -> np.ndarray:
    """How far the rank of each quantile is from the one that was asked for, as a share of the rows."""
    ordered = np.sort(column)
    low = np.searchsorted(ordered, found.astype(np.float32), "left") / len(ordered)
    high = np.searchsorted(ordered, found.astype(np.float32), "right") / len(ordered)
    return np.maximum(np.maximum(low - QUANTILES, np.array(QUANTILES) - high), 0)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_within_the_bound_of_the_full_array_in_any_parts_and_order(draw: Any) -> None:
    kinds = draw.draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=3))
    rows = draw.draw(st.integers(1, 1500))
    generator = torch.Generator().manual_seed(draw.draw(st.integers(0, 1000)))
    values = torch.stack([unit(kind, rows, generator) for kind in kinds], 1)
    merged = Quantiles(len(kinds))
    for part in draw.draw(parts(rows)):
        piece = Quantiles(len(kinds))
        piece.update(values[part])
        merged = piece.merge(merged) if draw.draw(st.booleans()) else merged.merge(piece)
    assert merged.count == rows
    found = merged.result()["quantiles"].numpy()
    for number in range(len(kinds)):
        column = values[:, number].numpy()
        assert np.isin(found[:, number].astype(np.float32), column).all(), "a quantile is a value that was seen"
        # One rank of a small sample is a large share of it. The stated error holds in 99 of 100 cases, so twice of it.
        assert rank_errors(found[:, number], column).max() <= 2 * merged.rank_error + 1 / rows


def test_few_rows_are_exact() -> None:
    quantiles = Quantiles(2)
    quantiles.update(torch.stack([torch.arange(101.0), -torch.arange(101.0)], 1))
    assert quantiles.quantile([0.0, 0.5, 1.0]).tolist() == [[0.0, -100.0], [50.0, -50.0], [100.0, 0.0]]
    assert quantiles.rank_error == 0.0
    assert quantiles.result()["quantiles"].shape == (len(QUANTILES), 2)


def test_many_rows_in_parts_are_within_the_rank_error() -> None:
    values = torch.randn(20000, 3, generator=torch.Generator().manual_seed(14))
    values[:, 1] = values[:, 1] * 1e-3 + 1e4
    merged = Quantiles(3)
    for part in values.split(3000):
        piece = Quantiles(3)
        piece.update(part)
        merged = merged.merge(piece)
    assert merged.count == 20000 and merged.rank_error == pytest.approx(0.0133, abs=1e-3)
    found = merged.result()["quantiles"].numpy()
    for number in range(3):
        # The stated error holds in 99 of 100 cases; twice that in all but one of millions.
        assert rank_errors(found[:, number], values[:, number].numpy()).max() <= 2 * merged.rank_error


def test_merging_leaves_the_parts_as_they_were() -> None:
    a, b = Quantiles(1), Quantiles(1)
    a.update(torch.zeros(5, 1))
    b.update(torch.ones(5, 1))
    both = a.merge(b)
    assert a.quantile([1.0]).item() == 0.0 and b.quantile([0.0]).item() == 1.0
    assert both.quantile([0.0, 1.0]).flatten().tolist() == [0.0, 1.0]


def test_settings_are_checked() -> None:
    with pytest.raises(BadInput, match="8 to 65535"):
        Quantiles(1, k=3)
    with pytest.raises(BadInput, match="from 0 to 1"):
        Quantiles(1).quantile([2.0])
