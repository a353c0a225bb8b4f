"""The KLL sketch: exact for few rows, within its rank error for many, merged as well."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from optrode.errors import BadInput
from optrode.stats import Quantiles
from optrode.stats.quantiles import QUANTILES


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
        ordered = np.sort(values[:, number].numpy())
        low = np.searchsorted(ordered, found[:, number].astype(np.float32), "left") / 20000
        high = np.searchsorted(ordered, found[:, number].astype(np.float32), "right") / 20000
        # The stated error holds in 99 of 100 cases; twice that in all but one of millions.
        error = np.maximum(np.maximum(low - QUANTILES, np.array(QUANTILES) - high), 0)
        assert error.max() <= 2 * merged.rank_error


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
