"""Contrast data in one form."""

from __future__ import annotations

import pytest

from optrode.data import Pair, pairs
from optrode.errors import BadInput
from optrode.parts.pairs import as_letters, as_pairs, conversation

PAIRS = [Pair(f"p{n}", f"good {n}", f"bad {n}", f"g{n}") for n in range(7)]


def test_pairs_triples_and_behaviours_are_taken(small_behaviour):
    assert as_pairs(PAIRS) == tuple(PAIRS)
    assert as_pairs([("p", "yes", "no"), ["q", "ja", "nein"]]) == (
        Pair("p", "yes", "no", "0"),
        Pair("q", "ja", "nein", "1"),
    )
    assert as_pairs(small_behaviour) == small_behaviour.fit


@pytest.fixture
def small_behaviour():
    from optrode.data import Behaviour

    return Behaviour("b", "", ("a", "b"), ("", ""), tuple(PAIRS[:2]), (), (), ())


@pytest.mark.parametrize("data", [(), [], None, "text", 3, iter(PAIRS)])
def test_what_is_no_list_of_pairs_is_refused(data):
    with pytest.raises(BadInput) as caught:
        as_pairs(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("item", ["abc", ("a", "b"), ("a", "b", 3), None])
def test_an_item_that_is_no_pair_is_named_by_its_number(item):
    with pytest.raises(BadInput, match="item 1 is no pair"):
        as_pairs([PAIRS[0], item])


def test_letters_are_balanced_and_stand_for_the_reply_they_precede():
    for items in (PAIRS[:6], PAIRS, list(pairs("sentiment"))):
        asked = as_letters(items)
        right = [item.positive for item in asked]
        assert abs(right.count("(A") - right.count("(B")) <= len(items) % 2
        for pair, item in zip(items, asked, strict=True):
            assert {item.positive, item.negative} == {"(A", "(B"}
            assert f"{item.positive}) {pair.positive}\n" in item.question
            assert f"{item.negative}) {pair.negative}\n" in item.question
            assert item.question.startswith(pair.prompt)


def test_a_conversation_ends_with_the_reply():
    assert [message["role"] for message in conversation("p", "r")] == ["user", "assistant"]
    assert [message["content"] for message in conversation("p", "r")] == ["p", "r"]
