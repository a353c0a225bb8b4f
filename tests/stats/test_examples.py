"""Extremes and largest values with their examples, against sorting everything."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from optrode.errors import BadInput
from optrode.stats import Extremes, Top

from .conftest import data


def in_order(values: Tensor, where: Tensor, number: int, sign: float) -> list[tuple[float, list[int]]]:
    """Largest first; of equal ones the first example, and in it the first position."""
    rows = [(float(sign * values[row, number]), where[row].tolist()) for row in range(len(values))]
    return sorted(rows, key=lambda item: (-item[0], item[1][1], item[1][2]))


@settings(max_examples=60, deadline=None)
@given(data(), st.integers(1, 6))
def test_the_largest_in_order(drawn: tuple[Tensor, Tensor], k: int) -> None:
    values, where = drawn
    top, extremes = Top(values.shape[1], k), Extremes(values.shape[1])
    for start in range(0, len(values), 9):
        top.update(values[start : start + 9], where=where[start : start + 9])
        extremes.update(values[start : start + 9], where=where[start : start + 9])
    found, ends = top.result(), extremes.result()
    for number in range(values.shape[1]):
        expected = in_order(values, where, number, 1.0)
        for rank in range(k):
            if rank >= len(expected):
                assert torch.isnan(found["top"][rank, number]) and found["top_where"][rank, number].tolist() == [-1] * 4
                continue
            assert float(found["top"][rank, number]) == expected[rank][0]
            assert found["top_where"][rank, number].tolist() == expected[rank][1]
        if expected:
            assert (float(ends["highest"][number]), ends["highest_where"][number].tolist()) == expected[0]
            low, place = in_order(values, where, number, -1.0)[0]
            assert (float(ends["lowest"][number]), ends["lowest_where"][number].tolist()) == (-low, place)


def test_a_unit_that_never_varies_names_its_first_token() -> None:
    values, number = torch.zeros(3000, 40), torch.arange(3000)
    where = torch.stack([number // 100, number // 100, number % 100, number], 1)
    values[:, 0] = torch.randn(3000, generator=torch.Generator().manual_seed(8))
    top, extremes = Top(40, 5), Extremes(40)
    for rows in torch.randperm(3000, generator=torch.Generator().manual_seed(9)).split(700):
        top.update(values[rows], where=where[rows])
        extremes.update(values[rows], where=where[rows])
    assert top.result()["top_where"][:, 7, 3].tolist() == [0, 1, 2, 3, 4]
    assert extremes.result()["highest_where"][7].tolist() == [0, 0, 0, 0]
    assert extremes.result()["lowest_where"][39].tolist() == [0, 0, 0, 0]


def test_a_negative_zero_leaves_no_trace() -> None:
    a, b = Extremes(1), Extremes(1)
    a.update(torch.tensor([[-0.0], [0.0]]))
    b.update(torch.tensor([[0.0], [-0.0]]))
    for name in ("highest", "lowest"):
        assert not torch.signbit(a.result()[name]).any() and not torch.signbit(b.result()[name]).any()


def test_at_least_one_is_kept() -> None:
    with pytest.raises(BadInput, match="at least one"):
        Top(1, k=0)
