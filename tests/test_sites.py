from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optrode.errors import UnknownSite
from optrode.sites import parse, select

LAYERS = 12
NAMES = ("in", "attn.heads", "mlp.out", "out")
ADDRESSES = ["embed", *(f"layers.{layer}.{name}" for layer in range(LAYERS) for name in NAMES), "final", "logits"]


def matched(text: str) -> list[str]:
    return [address for address in ADDRESSES if parse(text).matches(address, LAYERS)]


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=60), st.text("layers.{},*-?0123456789:modue ", max_size=60)))
def test_any_text_is_parsed_or_refused_in_one_line(text: str):
    try:
        assert set(select(text, ADDRESSES, LAYERS)) <= set(ADDRESSES)
    except UnknownSite as refused:
        assert len(str(refused).splitlines()) == 1


@pytest.mark.parametrize("text", ["layers." + "9" * 5000 + ".out", "layers.1-" + "9" * 5000 + ".out", "{a,b}" * 40])
def test_absurd_sizes_are_refused_at_once(text: str):
    with pytest.raises(UnknownSite):
        select(text, ADDRESSES, LAYERS)


@given(st.integers(0, 15), st.one_of(st.none(), st.integers(0, 15)))
def test_ranges_agree_with_an_index_by_index_check(first: int, last: int | None):
    text = f"layers.{first}-{'' if last is None else last}.out"
    wanted = [f"layers.{i}.out" for i in range(LAYERS) if i >= first and (last is None or i <= last)]
    assert matched(text) == wanted


@given(st.integers(-15, 15))
def test_numbers_count_from_either_end(index: int):
    wanted = [f"layers.{i}.out" for i in range(LAYERS) if i in (index, index + LAYERS if index < 0 else index)]
    assert matched(f"layers.{index}.out") == wanted


@given(
    st.lists(st.one_of(st.integers(-15, 15).map(str), st.just("*"), st.just("2-4"), st.just("1?")), min_size=1),
    st.lists(st.sampled_from([*NAMES, "mlp.*"]), min_size=1),
)
def test_braces_are_the_union_of_their_spellings(indices: list[str], names: list[str]):
    wanted = {address for index in indices for name in names for address in matched(f"layers.{index}.{name}")}
    spaced = f"layers.{{{' , '.join(indices)}}}.{{{','.join(names)}}}"
    assert matched(spaced) == [address for address in ADDRESSES if address in wanted]


def test_nested_braces():
    assert matched("layers.{0,{1,2}}.out") == ["layers.0.out", "layers.1.out", "layers.2.out"]
    assert matched("{embed,layers.{0,1}.{in,out}}") == [
        "embed", "layers.0.in", "layers.0.out", "layers.1.in", "layers.1.out",
    ]  # fmt: skip


def test_a_star_stays_within_its_part_of_the_address():
    assert matched("layers.3.*") == ["layers.3.in", "layers.3.out"]
    assert matched("*") == ["embed", "final", "logits"]
    assert matched("layers.1.out") == ["layers.1.out"], "not 10 or 11"


def test_select_keeps_the_order_of_execution_and_each_address_once():
    assert select(["layers.2.out", "layers.{0,2}.out", "embed"], ADDRESSES, LAYERS) == [
        "embed", "layers.0.out", "layers.2.out",
    ]  # fmt: skip
    assert select(" layers.-1.out ", ADDRESSES, LAYERS) == ["layers.11.out"]


def test_raw_paths_are_matched_as_they_are():
    assert parse("module:encoder.*.2").matches("module:encoder.block.2", LAYERS)
    assert not parse("layers.*.out").matches("module:layers.1.out", LAYERS)
    assert not parse("module:*").matches("layers.1.out", LAYERS)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("layers.12.out", "layers 0 to 11"),
        ("layers.-13.out", "layers 0 to 11"),
        ("layers.3.uot", "did you mean layers.3.out"),
        ("layers.3.attn.head", "layers.3.attn.heads"),
        ("lgoits", "did you mean logits"),
        ("layers..out", "no site address"),
        ("layers.[0-3].out", "no site address"),
        ("", "no site address"),
    ],
)
def test_a_wrong_address_is_answered_with_a_right_one(text: str, says: str):
    with pytest.raises(UnknownSite, match=re.escape(says)):
        select(text, ADDRESSES, LAYERS)


def test_one_wrong_pattern_among_right_ones_is_not_swallowed():
    with pytest.raises(UnknownSite, match="mpl"):
        select(["layers.*.out", "layers.*.mpl.out"], ADDRESSES, LAYERS)
    with pytest.raises(UnknownSite, match="no site was asked for"):
        select([], ADDRESSES, LAYERS)


TOWERS = {"vision": 12, "text": 3, "": 2}
SPANNING = [
    f"{stem}layers.{layer}.{name}"
    for stem, layers in (("vision.", 12), ("text.", 3), ("", 2))
    for layer in range(layers)
    for name in ("in", "out")
]


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("vision.layers.-1.out", ["vision.layers.11.out"]),
        ("text.layers.-1.out", ["text.layers.2.out"]),
        ("layers.-1.out", ["layers.1.out"]),
        ("*.layers.2-.in", [f"vision.layers.{layer}.in" for layer in range(2, 12)] + ["text.layers.2.in"]),
        ("{vision,text}.layers.1.out", ["vision.layers.1.out", "text.layers.1.out"]),
        ("layers.*.out", ["layers.0.out", "layers.1.out"]),
    ],
)
def test_each_tower_counts_its_own_layers(pattern: str, wanted: list[str]) -> None:
    assert select(pattern, SPANNING, TOWERS) == wanted


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("vision.layers.12.out", "vision has layers 0 to 11"),
        ("layers.2.out", "it has layers 0 to 1"),
        ("text.layers.-4.in", "text has layers 0 to 2"),
        ("text.layers.2.uot", "did you mean text.layers.2.out"),
        ("vison.layers.3.out", "did you mean vision.layers.3.out"),
    ],
)
def test_an_address_in_no_tower_names_the_nearest(pattern: str, says: str) -> None:
    with pytest.raises(UnknownSite, match=says):
        select(pattern, SPANNING, TOWERS)
