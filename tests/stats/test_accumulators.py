"""What holds for every accumulator: batches, shards, masks and the order of merging leave no trace."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optrode.errors import BadFile, BadInput, MissingFile, NotSupported
from optrode.stats import (
    Accumulator,
    Count,
    Covariance,
    Extremes,
    Histogram,
    Magnitudes,
    Moments,
    Norms,
    Quantiles,
    SignCounts,
    Top,
)
from optrode.stats.accumulator import KINDS, made

from .conftest import data, parts

Make = Callable[[int], Accumulator]
# Equal to the last bit whatever the order.
BIT_EQUAL: dict[str, Make] = {
    "count": Count,
    "moments": lambda units: Moments(units, order=4),
    "extremes": Extremes,
    "top": lambda units: Top(units, k=3),
    "histogram": lambda units: Histogram(units, [-2.0, -0.5, 0.0, 0.5, 2.0, 1e4]),
    "magnitudes": Magnitudes,
    "norms": lambda units: Norms(units, k=4),
    "signs": SignCounts,
}
ALL: dict[str, Make] = {**BIT_EQUAL, "covariance": Covariance, "quantiles": Quantiles}


def test_every_kind_is_tested() -> None:
    assert set(ALL) == set(KINDS)


def states_equal(first: Accumulator, second: Accumulator) -> bool:
    a, b = first.state_dict(), second.state_dict()
    return a.keys() == b.keys() and all(a[name].numpy().tobytes() == b[name].numpy().tobytes() for name in a)


@pytest.mark.parametrize("kind", BIT_EQUAL)
@settings(max_examples=40, deadline=None)
@given(draw=st.data())
def test_neither_batches_nor_order_of_merging_show(kind: str, draw: Any) -> None:
    values, where = draw.draw(data())
    whole = BIT_EQUAL[kind](values.shape[1])
    whole.update(values, where=where)
    pieces = []
    for rows in draw.draw(parts(len(values))):
        piece = BIT_EQUAL[kind](values.shape[1])
        # Half of the pieces in two updates.
        for some in (rows[: len(rows) // 2], rows[len(rows) // 2 :]):
            piece.update(values[some], where=where[some])
        pieces.append(piece)
    while len(pieces) > 1:
        first = pieces.pop(draw.draw(st.integers(0, len(pieces) - 1)))
        second = pieces.pop(draw.draw(st.integers(0, len(pieces) - 1)))
        merged = first.merge(second)
        assert states_equal(merged, second.merge(first))
        pieces.append(merged)
    assert states_equal(pieces[0], whole)


@pytest.mark.parametrize("kind", ALL)
def test_saved_and_loaded_it_goes_on(kind: str, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(50, 3, generator=generator)
    one = ALL[kind](3)
    one.update(values[:30])
    again = Accumulator.load(one.save(tmp_path / "one.stats"))
    assert type(again) is type(one) and again.described() == one.described() and states_equal(again, one)
    for each in (one, again):
        each.update(values[30:])
    assert again.count == 50
    if kind != "quantiles":
        assert states_equal(again, one)


@pytest.mark.parametrize("kind", ALL)
def test_masked_rows_are_not_there_and_those_that_are_no_numbers_are_counted(kind: str) -> None:
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(4, 5, 3, generator=generator)
    mask = torch.rand(4, 5, generator=generator) < 0.6
    mask[0, :3] = True
    spoilt = values.clone()
    spoilt[~mask] = float("nan")
    spoilt[0, 0, 1], spoilt[0, 1, 2], spoilt[0, 2] = float("nan"), float("inf"), -float("inf")
    one, plain = ALL[kind](3), ALL[kind](3)
    one.update(spoilt, mask)
    rest = mask.clone()
    rest[0, :3] = False
    plain.update(values[rest])
    assert (one.count, one.skipped, plain.skipped) == (int(rest.sum()), 3, 0)
    plain.skipped = 3
    if kind != "quantiles":
        assert states_equal(one, plain)


@pytest.mark.parametrize("kind", ALL)
def test_of_nothing_and_of_one_row(kind: str) -> None:
    empty, one, none = ALL[kind](2), ALL[kind](2), ALL[kind](2)
    empty.update(torch.empty(0, 2))
    one.update(torch.tensor([[1.5, -2.0]]))
    none.update(torch.ones(3, 2), mask=torch.zeros(3, dtype=torch.bool))
    assert empty.count == none.count == 0 and one.count == 1
    assert states_equal(empty.merge(none), empty)
    assert states_equal(one.merge(empty), one) and states_equal(empty.merge(one), one)
    for value in one.result().values():
        assert value is not None
    assert empty.result().keys() == one.result().keys()


@pytest.mark.parametrize("kind", ALL)
def test_results_have_the_shape_of_a_row(kind: str) -> None:
    flat, shaped = ALL[kind](6), ALL[kind]((2, 3))  # type: ignore[arg-type]
    values = torch.randn(20, 6, generator=torch.Generator().manual_seed(2))
    flat.update(values)
    shaped.update(values.view(4, 5, 2, 3))
    for name, value in flat.result().items():
        theirs = shaped.result()[name]
        assert theirs.numel() == value.numel()
        assert torch.equal(theirs.flatten(), value.flatten()) or kind == "quantiles"


def test_half_precisions_are_float32_that_is_rounded_already() -> None:
    values = torch.randn(30, 4, generator=torch.Generator().manual_seed(3))
    for dtype in (torch.bfloat16, torch.float16):
        one, wide = Moments(4), Moments(4)
        one.update(values.to(dtype))
        wide.update(values.to(dtype).float())
        assert states_equal(one, wide)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="do not end with the units"):
        Moments(4).update(torch.ones(3, 5))
    with pytest.raises(BadInput, match="does not fit rows"):
        Moments(4).update(torch.ones(3, 4), mask=torch.ones(2, dtype=torch.bool))
    with pytest.raises(BadInput, match="3 rows came with 2 places"):
        Extremes(4).update(torch.ones(3, 4), where=torch.zeros(2, 4, dtype=torch.long))
    with pytest.raises(NotSupported, match="measurements"):
        Moments(4).update(torch.ones(3, 4, dtype=torch.long))
    for other in (Moments(5), Moments(4, order=3), Extremes(4)):
        with pytest.raises(BadInput, match="cannot be merged"):
            Moments(4).merge(other)
    with pytest.raises(MissingFile):
        Accumulator.load(tmp_path / "nothing.stats")
    (tmp_path / "bad.stats").write_bytes(b"no statistics")
    with pytest.raises(BadFile):
        Accumulator.load(tmp_path / "bad.stats")
    with pytest.raises(BadFile, match="knows no accumulator"):
        made({"kind": "later", "shape": [1], "settings": {}}, {})
    with pytest.raises(BadFile, match="no state"):
        made(Moments(4).described(), Moments(5).state_dict())
