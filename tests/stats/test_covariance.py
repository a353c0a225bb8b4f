"""Covariances against numpy in float64, within the bound that is stated."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from optrode.errors import BadInput
from optrode.stats import Covariance, CrossMoments

from .conftest import parts, unit

BOUND = 1e-5


def near(found: Tensor, first: Tensor, second: Tensor) -> bool:
    a, b = (values.double().numpy() - values.double().numpy().mean(0) for values in (first, second))
    true = a.T @ b / len(a)
    scale = np.sqrt(np.outer((a**2).mean(0), (b**2).mean(0)))
    return bool((np.abs(found.numpy() - true) <= BOUND * scale + 1e-300).all())


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_within_the_bound_in_any_order(draw: Any) -> None:
    kinds = draw.draw(
        st.lists(st.sampled_from(("normal", "offset", "outlier", "relu", "constant")), min_size=1, max_size=4)
    )
    generator = torch.Generator().manual_seed(draw.draw(st.integers(0, 1000)))
    values = torch.stack([unit(kind, 50, generator) for kind in kinds], 1)
    merged, cross = Covariance(len(kinds)), CrossMoments(len(kinds), 1)
    for rows in draw.draw(parts(50)):
        piece, pair = Covariance(len(kinds)), CrossMoments(len(kinds), 1)
        piece.update(values[rows])
        pair.update(values[rows], values[rows][:, :1])
        merged, cross = piece.merge(merged), pair.merge(cross)
    assert merged.count == cross.count == 50
    assert near(merged.result()["covariance"], values, values)
    assert near(cross.result()["covariance"], values, values[:, :1])


def test_many_rows_with_a_far_mean() -> None:
    generator = torch.Generator().manual_seed(6)
    values = torch.randn(5000, 8, generator=generator) @ torch.randn(8, 8, generator=generator) + 1e4
    covariance = Covariance(8)
    for part in values.split(333):
        covariance.update(part)
    assert near(covariance.result()["covariance"], values, values)
    torch.testing.assert_close(covariance.result()["mean"], values.double().mean(0), rtol=1e-12, atol=0)


def test_between_two_sites_only_rows_that_are_numbers_at_both() -> None:
    generator = torch.Generator().manual_seed(7)
    first, second = torch.randn(3, 10, 4, generator=generator), torch.randn(3, 10, 2, 3, generator=generator)
    second = second + first[..., :1, None]
    mask = torch.rand(3, 10, generator=generator) < 0.7
    spoilt, other = first.clone(), second.clone()
    spoilt[0, 0], other[1, 1, 0, 0] = float("nan"), float("inf")
    mask[0, 0] = mask[1, 1] = True
    cross = CrossMoments(4, (2, 3))
    cross.update(spoilt, other, mask)
    mask[0, 0] = mask[1, 1] = False
    assert (cross.count, cross.skipped) == (int(mask.sum()), 2)
    found = cross.result()
    assert found["covariance"].shape == (4, 2, 3)
    assert near(found["covariance"].view(4, 6), first[mask], second[mask].flatten(1))
    expected = np.corrcoef(first[mask].T.numpy(), second[mask].flatten(1).T.numpy())[:4, 4:]
    np.testing.assert_allclose(found["correlation"].view(4, 6), expected, atol=1e-5)
    with pytest.raises(BadInput, match="other sites"):
        cross.merge(CrossMoments(4, 6))


def test_of_nothing_it_is_no_number() -> None:
    assert torch.isnan(Covariance(2).result()["covariance"]).all()
    assert torch.isnan(CrossMoments(2, 2).result()["covariance"]).all()
