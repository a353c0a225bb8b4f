"""Capability questions, and what counts as right, against logits read by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from optrode import edits
from optrode.data.capability import NUMBERS, capability
from optrode.edits import PrefixEdit
from optrode.errors import BadInput
from optrode.parts.metrics.capability import Capability
from optrode.parts.pairs import conversation


def test_there_are_over_a_hundred_with_one_right_answer_each():
    found = capability()
    assert len(found) >= 100 and len({(item.prompt, item.opening) for item in found}) == len(found)
    for item in found:
        assert len(item.positive) == 1 and len(set(item.negative)) == 3 and item.positive[0] not in item.negative
    sorts = [item.group for item in found]
    assert {"sums", "order", "opposites", "kinds", "capitals"} == set(sorts)
    assert max(map(sorts.count, set(sorts))) < 0.3 * len(sorts)


def test_every_sum_and_every_step_is_right():
    numbers = ("zero", *NUMBERS)
    for item in capability():
        words = item.opening.lower().split()
        if item.group == "sums":
            sign = 1 if words[1] == "plus" else -1
            assert item.positive[0].strip() == numbers[numbers.index(words[0]) + sign * numbers.index(words[2])]


def test_no_right_answer_is_told_by_how_often_it_stands_there():
    """An answer that is right somewhere is wrong somewhere too: guessing the frequent ones must not pay."""
    right = [item.positive[0] for item in capability()]
    wrong = {answer for item in capability() for answer in item.negative}
    assert sum(answer in wrong for answer in right) > 0.9 * len(right)


def test_a_count_takes_the_first_and_refuses_what_there_is_not():
    assert capability(7) == capability()[:7]
    for count in (0, len(capability()) + 1):
        with pytest.raises(BadInput, match="ask for 1 to"):
            capability(count)


def by_hand(model, edit=None):
    """Right where the right answer's text is likelier than each wrong one's, one unpadded row in each forward."""
    found = []
    for item in capability(6):
        scores = []
        for answer in (*item.positive, *item.negative):
            before = model.encode(conversation(item.prompt, item.opening))
            whole = model.encode(conversation(item.prompt, item.opening + answer))
            start = int((before.ids[0] == whole.ids[0][: before.width]).int().cumprod(0).sum())
            with torch.no_grad():
                logits = model.module(input_ids=whole.ids).logits[0].log_softmax(-1)
            ids = whole.ids[0]
            # The template may close the turn behind the answer; that is the same for all answers.
            scores.append(sum(float(logits[place - 1, ids[place]]) for place in range(start, whole.width)))
        found.append(float(scores[0] > max(scores[1:])))
    return found


def test_right_answers_by_hand(llama):
    assert Capability(llama, 6).right().tolist() == by_hand(llama)


def test_an_edit_of_nothing_changes_nothing_and_a_prompt_is_asked_anew(llama):
    asked = Capability(llama, 24, layers=[1, 2])
    base = asked.right()
    assert asked.groups == [item.group for item in capability(24)]
    np.testing.assert_array_equal(asked.right(edits.add("layers.1.out", torch.zeros(llama.width))), base)
    strong = asked.right(edits.add("layers.1.out", 50 * torch.randn(llama.width, generator=torch.Generator())))
    assert set(strong.tolist()) <= {0.0, 1.0} and not np.array_equal(strong, base)
    assert len(asked.right(PrefixEdit(system="Be kind."))) == 24
