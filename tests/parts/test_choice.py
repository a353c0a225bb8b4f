"""Forced choice by a literal sum of token log-probabilities, by both paths, resumed and fresh."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch

import optrode as op
from optrode import edits
from optrode.data import Choice
from optrode.edits import PrefixEdit
from optrode.errors import BadInput
from optrode.parts import choice as module
from optrode.parts.choice import ForcedChoice

ONE_TOKEN = [
    Choice("How was it?", "It", (" is", " will"), (" dog", " the", " cat"), "a"),
    Choice("And the Eiffel Tower, what of that?", "The weather", (" and",), (" of",), "b"),
    Choice("So?", "Sure, the", (" mat",), (" door",), "a"),
]
TEXTS = [
    Choice("How was it?", "It is", (" lovely there", " fine"), (" a bad day",), "a"),
    Choice("And the Eiffel Tower, what of that?", "", ("Good.", "So good"), ("Bad, bad.", "No"), "b"),
]


def by_hand(model: op.Model, choices: Sequence[Choice]) -> torch.Tensor:
    """log of the summed probabilities of the continuations, token by token in plain forwards."""
    tokenizer = model.tokenizer

    def logprob(choice: Choice, text: str) -> float:
        head = f"<|im_start|>user\n{choice.prompt}<|im_end|>\n<|im_start|>assistant\n"
        given = tokenizer(head, add_special_tokens=False)["input_ids"]
        whole = tokenizer(head + choice.opening + text, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logits = model.module(input_ids=torch.tensor([whole])).logits[0].log_softmax(-1)
        return sum(float(logits[place - 1, whole[place]]) for place in range(len(given), len(whole)))

    def side(choice: Choice, texts: Sequence[str]) -> float:
        return math.log(sum(math.exp(logprob(choice, text)) for text in texts))

    return torch.tensor([side(c, c.positive) - side(c, c.negative) for c in choices])


@pytest.mark.parametrize("choices", [ONE_TOKEN, TEXTS], ids=["one token", "texts"])
def test_the_figures_are_those_of_plain_forwards(model, choices):
    asked = ForcedChoice(model, choices)
    found = asked.ask()
    assert found.shape == (len(choices),) and found.dtype == torch.float32
    torch.testing.assert_close(found, by_hand(model, choices), atol=2e-4, rtol=1e-4)
    assert (asked._words is not None) is (choices is ONE_TOKEN)


def test_one_token_gives_what_whole_texts_give(model, monkeypatch):
    short = ForcedChoice(model, ONE_TOKEN).ask()
    monkeypatch.setattr(module, "_single_tokens", lambda model, choice: None)
    torch.testing.assert_close(ForcedChoice(model, ONE_TOKEN).ask(), short, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("choices", [ONE_TOKEN, TEXTS], ids=["one token", "texts"])
@pytest.mark.parametrize("positions", ["after_instruction", "all", "first:2@user", "last_prompt"])
def test_resumed_is_as_fresh(model, choices, positions):
    vector = torch.randn(32, generator=torch.Generator().manual_seed(0))
    asked, whole = ForcedChoice(model, choices, layers=[1, 2]), ForcedChoice(model, choices)
    base = asked.ask()
    for site in ("layers.0.out", "layers.1.in", "layers.1.out", "layers.2.out"):
        with model.edited(edits.add(site, 3 * vector, positions)):
            resumed, unresumed, fresh = asked.ask(), whole.ask(), asked.ask(fresh=True)
        torch.testing.assert_close(resumed, fresh, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(unresumed, fresh, atol=1e-4, rtol=1e-4)
        if positions == "after_instruction":
            assert float((fresh - base).abs().max()) > 1e-2
    # Nothing of an edit stays behind.
    assert torch.equal(asked.ask(), base)


def test_what_is_kept_is_the_unedited_run_even_when_made_under_an_edit(llama):
    edit = edits.add("layers.1.out", torch.ones(32))
    with llama.edited(edit):
        asked = ForcedChoice(llama, ONE_TOKEN, layers=[1, 2])
        under = asked.ask()
    torch.testing.assert_close(asked.ask(), ForcedChoice(llama, ONE_TOKEN).ask())
    with llama.edited(edit):
        torch.testing.assert_close(under, ForcedChoice(llama, ONE_TOKEN).ask())


def test_a_prefix_edit_is_asked_fresh(llama):
    asked = ForcedChoice(llama, ONE_TOKEN)
    prefix = PrefixEdit(system="Be kind.")
    with llama.edited(prefix):
        fresh = asked.ask(fresh=True)
    assert float((fresh - asked.ask()).abs().max()) > 1e-3
    talk = [
        [{"role": "system", "content": "Be kind."}, {"role": "user", "content": c.prompt},
         {"role": "assistant", "content": c.opening}]
        for c in ONE_TOKEN
    ]  # fmt: skip
    logits = llama.read(talk, "logits", positions="last_prompt")["logits"]
    ids = [llama.tokenizer.convert_tokens_to_ids(word) for word in ("Ġmat", "Ġdoor")]
    torch.testing.assert_close(fresh[2], logits[2, ids[0]] - logits[2, ids[1]], atol=1e-4, rtol=1e-4)


def test_swapped_sides_turn_the_sign(llama):
    turned = [Choice(c.prompt, c.opening, c.negative, c.positive, c.group) for c in ONE_TOKEN]
    torch.testing.assert_close(ForcedChoice(llama, turned).ask(), -ForcedChoice(llama, ONE_TOKEN).ask())
    assert ForcedChoice(llama, turned).groups == ["a", "b", "a"]


def test_no_choice_is_refused(llama):
    with pytest.raises(BadInput, match="at least one"):
        ForcedChoice(llama, [])
