from __future__ import annotations

from collections import Counter
from itertools import islice
from random import Random

import pytest

from optrode.data.texts import Section, dealt, fill, parse, select


def test_sections_keep_order_fields_and_lines():
    parts = parse("# a comment\n== words | fit\ngood / bad\n\n== subject | fit | the soup\n+ hot\n- cold\n")
    assert [part.kind for part in parts] == ["words", "subject"]
    assert parts[0].columns() == (("good", "bad"),)
    assert select(parts, "subject", "fit")[0].marked("-") == ("cold",)
    assert select(parts, "subject", "test") == []


def test_lines_without_a_section_and_lone_twins_are_refused():
    with pytest.raises(ValueError, match="before the first section"):
        parse("astray\n")
    with pytest.raises(ValueError, match="must alternate"):
        Section("replies", ("fit",), ("one", "> two", "three")).twins()
    with pytest.raises(ValueError, match="this / that"):
        Section("words", ("fit",), ("good",)).columns()


def test_fill_capitalises_on_demand():
    assert fill("{Why}, said {it}.", {"why": "it rains", "it": "the owl"}) == "It rains, said the owl."


def test_hands_repeat_nothing_and_use_all_alike():
    hands = list(islice(dealt(range(7), 4, Random(3)), 70))
    assert all(len(set(hand)) == 4 for hand in hands)
    counts = Counter(item for hand in hands for item in hand)
    assert max(counts.values()) - min(counts.values()) <= 1
    with pytest.raises(ValueError, match="cannot be dealt"):
        next(dealt("ab", 3, Random(0)))
