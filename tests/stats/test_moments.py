"""Moments against sums in fractions, which round nothing, and against scipy."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from scipy import stats as scipy_stats
from torch import Tensor

from optrode.errors import BadInput
from optrode.stats import Moments
from optrode.stats.exact import ExactSum, add_powers
from optrode.stats.rows import Rows

from .conftest import KINDS, data, unit


def by_fractions(values: Tensor) -> list[Fraction]:
    """Mean and central moments 2 to 4 of one unit."""
    exact = [Fraction(float(value)) for value in values]
    mean = sum(exact, Fraction()) / len(exact)
    return [mean, *(sum((value - mean) ** k for value in exact) / len(exact) for k in (2, 3, 4))]


@settings(max_examples=60, deadline=None)
@given(data(most=40))
def test_mean_and_variance_are_the_true_ones_rounded_once(drawn: tuple[Tensor, Tensor]) -> None:
    values, _ = drawn
    moments = Moments(values.shape[1], order=4)
    moments.update(values)
    found = moments.result()
    for number in range(values.shape[1]):
        if not len(values):
            assert all(torch.isnan(found[name][number]) for name in found)
            continue
        mean, *central = by_fractions(values[:, number])
        assert float(found["mean"][number]) == float(mean)
        assert float(found["variance"][number]) == float(central[0])
        if central[0]:
            deviation = float(central[0]) ** 1.5
            if 1e-200 < deviation < 1e200:
                assert float(found["skewness"][number]) == pytest.approx(float(central[1]) / deviation, rel=1e-12)
        else:
            assert torch.isnan(found["skewness"][number]) and torch.isnan(found["kurtosis"][number])


@pytest.mark.parametrize("kind", KINDS)
def test_sums_of_powers_are_exact_in_every_window(kind: str) -> None:
    """More rows than are added at once, and values far below the largest of their unit."""
    values = unit(kind, 5000, torch.Generator().manual_seed(4))[:, None]
    sums = [ExactSum(1, power) for power in (1, 2, 3, 4)]
    add_powers(sums, Rows(values))
    whole = [int(Fraction(float(value)) * 2**160) for value in values.flatten()]
    for power, total in enumerate(sums, 1):
        assert total.totals()[0] == sum(value**power for value in whole)


def test_the_same_as_scipy_says() -> None:
    values = torch.randn(1000, 5, generator=torch.Generator().manual_seed(5)) ** 3
    moments = Moments(5, order=4)
    moments.update(values)
    found, theirs = moments.result(), values.double().numpy()
    np.testing.assert_allclose(found["mean"], theirs.mean(0), rtol=1e-13)
    np.testing.assert_allclose(found["variance"], theirs.var(0), rtol=1e-13)
    np.testing.assert_allclose(found["skewness"], scipy_stats.skew(theirs), rtol=1e-11)
    np.testing.assert_allclose(found["kurtosis"], scipy_stats.kurtosis(theirs), rtol=1e-11)


def test_limbs_carry() -> None:
    total = ExactSum(2, 1)
    for _ in range(5):
        total.add(np.array([2**62, -(2**62)]), np.array([0, -160]))
        total.add_one(1, -(2**200) + 1)
    assert total.totals().tolist() == [5 * 2**222, -5 * 2**62 - 5 * 2**200 + 5]


def test_there_is_no_fifth_moment() -> None:
    with pytest.raises(BadInput, match="order 1 to 4"):
        Moments(1, order=5)
