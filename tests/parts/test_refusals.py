"""Organisms, and what counts as language."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import optrode as op
from optrode.data import behaviour
from optrode.errors import NotSupported, WrongModel
from optrode.parts.digit_tasks import EXAMPLES, DigitTasks, answers, pick
from optrode.parts.organisms import birds, trained, with_adapter
from optrode.parts.pairs import conversation


def test_an_organism_in_the_weights_is_the_adapter_on_top(llama: op.Model):
    edit = trained(llama, [conversation("The cat?", "No.")] * 4, epochs=1, rank=2)
    prompt = "Where is the tower?"
    with llama.edited(edit):
        wanted = llama.read(prompt, "logits")["logits"]
    merged = with_adapter(llama, edit)
    torch.testing.assert_close(merged.read(prompt, "logits")["logits"], wanted, atol=1e-4, rtol=1e-4)
    assert not torch.equal(llama.read(prompt, "logits")["logits"], wanted)
    with pytest.raises(NotSupported):
        with_adapter(llama, op.edits.prompt("Be kind."))
    with pytest.raises(WrongModel):
        with_adapter(llama, birds.decline_birds())


def test_the_birds_asked_about_are_none_that_were_trained_on():
    asked, about = birds.questions(60)
    data = behaviour("decline-birds")
    seen = {pair.group for pair in data.fit} | {text.group for text in data.judge} | set(birds.ANIMALS)
    assert len(set(asked)) == 60 and not set(about) & seen
    assert not {question.group for question in data.matched} & seen


def test_digit_tasks_have_the_answers_that_they_say():
    digits = torch.arange(10)
    assert answers(0, digits).tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    assert answers(1, digits).tolist() == [10, 11] * 5
    assert answers(2, digits).tolist() == [0, 2, 4, 6, 8] * 2
    assert answers(3, digits).tolist() == [13] * 5 + [12] * 5


def test_a_digit_network_patched_with_its_own_stream_is_unchanged():
    network = DigitTasks.trained(0, steps=2)
    rows, targets = network.rows(0, 1, True, torch.Generator().manual_seed(0), EXAMPLES)
    assert rows.shape == (1, 3 * EXAMPLES + 2, 64) and targets.shape == (1, EXAMPLES + 1)
    with torch.no_grad():
        own = network(rows, keep=True)
        for block in range(4):
            torch.testing.assert_close(network(rows, (block, own[block])), network(rows))
    found = pick(network, 20, 0)
    assert all(0 <= share <= 1 for share in (found.own, found.wrong, found.none, found.shown))
    assert np.isfinite([found.same, found.other]).all()
