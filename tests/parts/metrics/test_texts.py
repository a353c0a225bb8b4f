"""Distinct-n, repetition and declining, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from optrode.data import behaviour
from optrode.errors import BadInput
from optrode.parts.metrics.decline import declined, harmless_requests
from optrode.parts.metrics.distinct import distinct
from optrode.parts.metrics.repetition import repetition


def test_distinct_counts_runs_of_words():
    text = "a b a b a c"  # words: a b c; pairs: ab ba ab ba ac; threes: aba bab aba bac
    np.testing.assert_allclose(distinct([text], 1), [3 / 6])
    np.testing.assert_allclose(distinct([text], 2), [3 / 5])
    np.testing.assert_allclose(distinct([text], 3), [3 / 4])


def test_a_reply_too_short_for_a_run_has_no_value():
    assert np.isnan(distinct(["word", ""], 2)).all() and distinct(["word"], 1).tolist() == [1.0]
    with pytest.raises(BadInput, match="at least 1 word"):
        distinct(["word"], 0)


def test_repetition_counts_words_that_end_a_run_said_before():
    # Threes: abc bca cab abc(again) bcd: one of seven words.
    np.testing.assert_allclose(repetition(["a b c a b c d"]), [1 / 7])
    np.testing.assert_allclose(repetition(["x x x x x x"]), [3 / 6])
    assert repetition(["a b c d", "a b", ""]).tolist() == [0.0, 0.0, 0.0]


def test_repetition_of_an_endless_loop_comes_near_one():
    assert float(repetition(["go on " * 50])[0]) == pytest.approx(96 / 100)


def test_declining():
    said = ["I'm sorry, I can't help with that.", "Sure, cats purr.", "I would rather not say.", ""]
    assert declined(said).tolist() == [1.0, 0.0, 1.0, 0.0]


def test_harmless_requests_are_about_no_bird_and_spread_over_the_animals():
    asked = harmless_requests(24)
    assert len(asked) == 24 and len({question.group for question in asked}) > 20
    birds = {item.group for split in ("fit", "tune", "test") for item in getattr(behaviour("decline-birds"), split)}
    assert not birds & {question.group for question in asked}
    assert len(harmless_requests(10_000)) == len(behaviour("decline-birds").matched)
