"""What a file says stands in one short line without characters that steer a terminal."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from optrode.errors import did_you_mean
from optrode.messages import one_line, plain, shown


@given(st.text(st.characters(), max_size=300))
def test_any_text_is_printable_and_short(text: str):
    for said in (plain(text), shown(text), one_line(text), one_line(ValueError(text))):
        assert said.isprintable() and len(said) <= 200


def test_values_of_any_depth_and_size():
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    for value in (deep, 10**4000, {"a": [1] * 1000}, b"\x1b" * 1000):
        assert len(shown(value)) <= 80 and shown(value).isprintable()


def test_names_out_of_a_file_are_cut_too():
    said = did_you_mean("x", ["a\nb", "\x1b[2J", "n" * 5000])
    assert said.isprintable() and len(said) < 300
