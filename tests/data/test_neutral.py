from __future__ import annotations

import re

import pytest

from optrode.data import neutral_texts
from optrode.errors import BadInput

OPINIONS = (
    "good|bad|great|best|worst|beautiful|ugly|wonderful|terrible|lovely|awful|excellent|poor|nice|horrible|amazing|"
    "delicious|boring|sadly|happily|unfortunately|fortunately|love|hate|perfect|impressive|I|we"
)


def test_there_are_enough_and_all_differ():
    assert len(neutral_texts()) >= 80
    assert len(set(neutral_texts())) == len(neutral_texts())


def test_each_is_a_passage_of_two_to_four_sentences():
    for text in neutral_texts():
        assert 25 <= len(text.split()) <= 60, text
        assert 2 <= len(re.findall(r"[.!?](?= [A-Z]|$)", text)) <= 4, text
        assert text.endswith(".")


def test_no_passage_gives_an_opinion():
    pattern = re.compile(rf"\b({OPINIONS})\b")
    assert not [text for text in neutral_texts() if pattern.search(text)]


def test_a_count_takes_the_first_and_refuses_what_there_is_not():
    assert neutral_texts(5) == neutral_texts()[:5]
    assert neutral_texts(len(neutral_texts())) == neutral_texts()
    for count in (0, -1, len(neutral_texts()) + 1):
        with pytest.raises(BadInput, match="ask for 1 to"):
            neutral_texts(count)
