from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optrode.errors import BadInput, NotFinite
from optrode.store.layout import ShardLayout, StoredSite
from optrode.store.precision import Rounding, kept_dtype, policy_of, restored, scales_of

numbers = st.floats(-6e4, 6e4, width=32)
tables = st.lists(st.lists(numbers, min_size=3, max_size=3), min_size=1, max_size=12).map(torch.tensor)


@given(tables, st.sampled_from(["bfloat16", "float16"]))
def test_what_is_stated_is_what_rounding_did(values: torch.Tensor, policy: str) -> None:
    out, rounding = torch.empty_like(values, dtype=kept_dtype(policy, torch.float32)), Rounding()
    for part, target in zip(values.split(2), out.split(2), strict=True):
        rounding.keep("site", part, target)
    error = (out.double() - values.double()).abs()
    figures = rounding.figures()
    assert figures["max_abs"] == pytest.approx(float(error.max()), rel=1e-3)
    size = float(values.double().norm())
    assert figures["relative_rms"] == pytest.approx(
        float(error.norm()) / size if size > 1e-18 else 0, rel=1e-2, abs=1e-6
    )
    assert torch.equal(out, values.to(out.dtype))


@given(
    st.lists(st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=3, max_size=3), min_size=1).map(torch.tensor)
)
def test_scaled_float16_keeps_eleven_bits_of_every_channel_of_any_size(values: torch.Tensor) -> None:
    scale = scales_of(values.abs().amax(0))
    out = torch.empty_like(values, dtype=torch.float16)
    Rounding().keep("site", values, out, scale)
    back = restored(out, scale)
    smallest = values.abs().amax(0) * 2.0**-38
    assert torch.all((back - values).abs() <= values.abs() * 2.0**-11 + smallest)


def test_nothing_is_rounded_where_the_dtype_is_the_same_or_wider() -> None:
    for own, kept in ((torch.float32, torch.float32), (torch.bfloat16, torch.float32), (torch.float16, torch.float64)):
        values, rounding = torch.randn(4, 3).to(own), Rounding()
        out = torch.empty(4, 3, dtype=kept)
        rounding.keep("site", values, out)
        assert rounding.figures() == {"max_abs": 0.0, "relative_rms": 0.0}
        assert torch.equal(out, values.to(kept))


def test_an_overflow_is_an_error_that_names_the_value_and_the_way_out() -> None:
    with pytest.raises(
        NotFinite, match=r"layers.1.out reaches 7e\+04, which float16 cannot hold .*65504.*float16_scaled"
    ):
        Rounding().keep("layers.1.out", torch.tensor([[1.0, 7e4]]), torch.empty(1, 2, dtype=torch.float16))


def test_what_was_infinite_before_stays_so_and_does_not_count() -> None:
    values, out, rounding = torch.tensor([[1 / 3, -torch.inf]]), torch.empty(1, 2, dtype=torch.float16), Rounding()
    rounding.keep("site", values, out)
    assert out[0, 1] == -torch.inf
    assert 0 < rounding.figures()["max_abs"] < 1e-3


def test_whole_numbers_are_kept_as_they_are() -> None:
    assert kept_dtype("float16", torch.int64) is torch.int64


@pytest.mark.parametrize("wrong", ["int8", "float8", torch.int32])
def test_other_dtypes_are_refused(wrong: object) -> None:
    with pytest.raises(BadInput, match="did you mean"):
        policy_of(wrong)  # type: ignore[arg-type]


@settings(max_examples=30)
@given(
    st.lists(st.sampled_from([torch.float16, torch.float32, torch.int64, torch.uint8, torch.bool]), min_size=1),
    st.integers(1, 9),
)
def test_the_file_is_one_that_safetensors_reads(kinds: list[torch.dtype], rows: int) -> None:
    from safetensors.torch import load

    sites = [StoredSite(f"s{number}", "", ("feature",), (number + 1,), kind, kind) for number, kind in enumerate(kinds)]
    layout = ShardLayout.of(sites, rows, 2)
    header = layout.header({"optrode": "{}"})
    found = load(header + bytes(layout.size))
    assert {name: (value.dtype, tuple(value.shape)) for name, value in found.items()} == {
        site.address: (site.kept, (rows, *site.shape)) for site in sites
    }
    assert len(header) % 8 == 0
    assert all(place.start % place.dtype.itemsize == 0 for place in layout.places.values())
