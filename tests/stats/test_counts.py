"""Counts by sign, bin and size, and norms, against numpy on the whole array."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from optrode.errors import BadInput
from optrode.stats import Extremes, Histogram, Magnitudes, Norms, SignCounts, log_edges, stream_norms
from optrode.stats.norms import row_norms
from optrode.stats.rows import Rows

from .conftest import data


@settings(max_examples=60, deadline=None)
@given(data())
def test_signs_and_bins(drawn: tuple[Tensor, Tensor]) -> None:
    values, _ = drawn
    edges = np.array([-3.0, -0.5, 0.0, 0.25, 1.0, 2e4], np.float32)
    signs, histogram = SignCounts(values.shape[1]), Histogram(values.shape[1], edges.tolist())
    signs.update(values)
    histogram.update(values)
    array = values.numpy()
    for name, expected in (("positive", array > 0), ("negative", array < 0), ("zero", array == 0)):
        assert signs.result()[f"{name}_count"].tolist() == expected.sum(0).tolist()
    found = histogram.result()
    for number in range(values.shape[1]):
        # numpy counts what lies on the last edge, which here is above.
        inside = array[array[:, number] < edges[-1], number]
        assert found["histogram"][:, number].tolist() == np.histogram(inside, edges)[0].tolist()
        assert int(found["below"][number]) == int((array[:, number] < edges[0]).sum())
        assert int(found["above"][number]) == int((array[:, number] >= edges[-1]).sum())


def test_bins_between_the_extremes_of_a_first_pass_hold_everything() -> None:
    values = torch.randn(500, 3, generator=torch.Generator().manual_seed(10)) * 7 + 1e4
    first = Extremes(3)
    first.update(values)
    second = Histogram.between(first, bins=20)
    second.update(values)
    found = second.result()
    assert found["histogram"].sum(0).tolist() == [500] * 3 and not found["above"].any() and not found["below"].any()
    assert len(second.edges) == 21
    with pytest.raises(BadInput, match="no row was counted"):
        Histogram.between(Extremes(3))


def test_edges_must_rise() -> None:
    for edges in ([1.0], [1.0, 1.0], [2.0, 1.0]):
        with pytest.raises(BadInput, match="two edges"):
            Histogram(1, edges)
    with pytest.raises(BadInput, match="above zero"):
        log_edges(0.0, 1.0)


@settings(max_examples=60, deadline=None)
@given(data())
def test_quantiles_of_magnitudes_are_within_the_stated_error(drawn: tuple[Tensor, Tensor]) -> None:
    values, _ = drawn
    magnitudes = Magnitudes(values.shape[1])
    magnitudes.update(values)
    ordered = np.sort(np.abs(values.double().numpy()).ravel())
    for q in (0.0, 0.25, 0.5, 0.95, 1.0):
        found = magnitudes.quantile(q)
        if not len(ordered):
            assert np.isnan(found)
            continue
        true = ordered[int(q * (len(ordered) - 1))]
        # Numbers under the smallest normal ones are as good as zero.
        assert abs(found - true) <= Magnitudes.RELATIVE_ERROR * true + 2e-38


@settings(max_examples=40, deadline=None)
@given(data())
def test_norms_are_those_of_the_whole_array(drawn: tuple[Tensor, Tensor]) -> None:
    values, where = drawn
    norms = Norms(values.shape[1], k=3)
    norms.update(values, where=where)
    found, true = norms.result(), np.linalg.norm(values.double().numpy(), axis=1)
    if not len(true):
        assert torch.isnan(found["norm_mean"]) and int(found["sinks"]) == 0
        return
    assert float(found["norm_mean"]) == pytest.approx(true.mean(), rel=1e-7)
    assert float(found["norm_deviation"]) == pytest.approx(true.std(), rel=1e-5, abs=1e-6 * true.max())
    assert float(found["norm_max"]) == pytest.approx(true.max(), rel=1e-7)
    assert float(found["norm_median"]) == pytest.approx(np.sort(true)[(len(true) - 1) // 2], rel=2.0**-8, abs=2e-38)
    assert found["norm_top_where"][0].tolist() == where[int(row_norms(Rows(values)).argmax())].tolist()


def test_norms_agree_with_those_of_steering() -> None:
    h = torch.randn(3, 20, 16, generator=torch.Generator().manual_seed(11))
    mask = torch.rand(3, 20, generator=torch.Generator().manual_seed(12)) < 0.8
    norms = Norms(16)
    norms.update(h, mask)
    plain = stream_norms(h, mask)
    assert float(norms.result()["norm_median"]) == pytest.approx(plain["median"], rel=2.0**-8)
    assert float(norms.result()["norm_max"]) == pytest.approx(plain["max"], rel=1e-6)


def test_a_row_has_the_same_norm_beside_any_others() -> None:
    values = torch.randn(300, 700, generator=torch.Generator().manual_seed(13)) * 100
    together = row_norms(Rows(values))
    for row in (0, 17, 299):
        assert torch.equal(row_norms(Rows(values[row : row + 1].clone())), together[row : row + 1])


def test_sinks_are_counted() -> None:
    values = torch.ones(50, 4)
    values[7] *= 20
    norms = Norms(4)
    norms.update(values)
    assert int(norms.result()["sinks"]) == 1
