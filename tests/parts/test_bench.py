"""The bench by hand: damage to neutral text, written replies, fluency."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import optrode as op
from optrode import edits
from optrode.data import Choice
from optrode.edits import PrefixEdit
from optrode.errors import BadInput
from optrode.parts.bench import (
    NEUTRAL_REQUEST,
    Neutral,
    distinct_bigrams,
    fluency,
    maybe_edited,
    rewrites_prompt,
    write_replies,
)

PASSAGES = ["The Eiffel Tower stands in Paris.", "The dog lay by the door. The cat sat there, and so on and on.", "So."]


def by_hand(model: op.Model, passages: list[str], vector: torch.Tensor | None = None):
    """Log-probabilities over the vocabulary that predict each token of each passage, and those tokens."""
    found = []
    for passage in passages:
        head = f"<|im_start|>user\n{NEUTRAL_REQUEST}<|im_end|>\n<|im_start|>assistant\n"
        start = len(model.tokenizer(head, add_special_tokens=False)["input_ids"])
        ids = torch.tensor([model.tokenizer(head + passage, add_special_tokens=False)["input_ids"]])
        hook = None
        if vector is not None:
            block = (model.module.transformer.h if hasattr(model.module, "transformer") else model.module.model.layers)[
                1
            ]

            def add(module, args, output):
                return (output[0] + vector, *output[1:]) if isinstance(output, tuple) else output + vector

            hook = block.register_forward_hook(add)
        with torch.no_grad():
            logits = model.module(input_ids=ids).logits[0].log_softmax(-1)
        if hook is not None:
            hook.remove()
        found.append((logits[start - 1 : -1], ids[0, start:]))
    return found


def test_loss_and_divergence_by_hand(model):
    vector = torch.randn(32, generator=torch.Generator().manual_seed(0))
    neutral = Neutral(model, PASSAGES, layers=[1, 2])
    base, after = by_hand(model, PASSAGES), by_hand(model, PASSAGES, vector)
    nll, kl = neutral.measure(edits.add("layers.1.out", vector))
    for number, ((own, ids), (other, _)) in enumerate(zip(base, after, strict=True)):
        picked = [float(-row[token]) for row, token in zip(own, ids, strict=True)]
        assert neutral.base_nll[number] == pytest.approx(np.mean(picked), abs=1e-4)
        picked = [float(-row[token]) for row, token in zip(other, ids, strict=True)]
        assert nll[number] == pytest.approx(np.mean(picked), abs=1e-4)
        divergence = [float((p.exp() * (p - q)).sum()) for p, q in zip(own, other, strict=True)]
        assert kl[number] == pytest.approx(np.mean(divergence), abs=1e-4)
    wanted = np.exp(np.mean(nll) - np.mean(neutral.base_nll))
    assert neutral.perplexity_ratio(edits.add("layers.1.out", vector)) == pytest.approx(wanted)


def test_nothing_changed_is_no_damage(model):
    neutral = Neutral(model, PASSAGES, layers=[1])
    for edit in (None, edits.add("layers.1.out", torch.ones(32)) * 0, edits.add("layers.1.out", torch.zeros(32))):
        nll, kl = neutral.measure(edit)
        np.testing.assert_allclose(nll, neutral.base_nll, atol=1e-5)
        np.testing.assert_allclose(kl, 0, atol=1e-5)
    assert neutral.perplexity_ratio(edits.add("layers.1.out", torch.zeros(32))) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("positions", ["all", "after_instruction", "first:2@user"])
def test_resumed_is_as_fresh(model, positions):
    vector = torch.randn(32, generator=torch.Generator().manual_seed(1))
    resumed, fresh = Neutral(model, PASSAGES, layers=[1, 2]), Neutral(model, PASSAGES)
    for site in ("layers.0.out", "layers.1.in", "layers.1.out", "layers.2.out"):
        edit = edits.add(site, 2 * vector, positions)
        for one, other in zip(resumed.measure(edit), fresh.measure(edit), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4)


def test_a_prefix_edit_is_measured_on_the_same_passages(llama):
    neutral = Neutral(llama, PASSAGES)
    nll, kl = neutral.measure(PrefixEdit(system="Be kind."))
    assert nll.shape == kl.shape == (3,) and (kl > 0).all() and not np.allclose(nll, neutral.base_nll)


def test_a_passage_does_not_depend_on_those_beside_it(model):
    together = Neutral(model, PASSAGES).base_nll
    alone = [float(Neutral(model, [passage]).base_nll[0]) for passage in PASSAGES]
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_no_passage_is_refused(llama):
    with pytest.raises(BadInput, match="at least one"):
        Neutral(llama, [])


CHOICES = [
    Choice("How was it?", "It is", (), (), "a"),
    Choice("And the Eiffel Tower, what of that?", "", (), (), "b"),
]


def test_replies_begin_with_their_openings_and_go_on_greedily(model):
    written = write_replies(model, CHOICES, None, new_tokens=5)
    assert written.openings == ("It is", "") and written.prompts == tuple(choice.prompt for choice in CHOICES)
    assert written.replies[0].startswith("It is") and 0 < written.tokens <= 10 and written.seconds > 0
    assert write_replies(model, CHOICES, None, new_tokens=5).replies == written.replies
    edit = edits.add("layers.1.out", 9 * torch.ones(32), "after_instruction")
    edited = write_replies(model, CHOICES, edit, new_tokens=5)
    with model.edited(edit):
        by_itself = model.completions(
            [[{"role": "user", "content": "How was it?"}, {"role": "assistant", "content": "It is"}]], max_new_tokens=5
        )
    assert edited.replies[0] == ("It is" + by_itself[0].text).strip()


def test_fluency_is_the_unedited_models_loss_on_what_was_written(model):
    written = write_replies(model, CHOICES, edits.add("layers.1.out", 9 * torch.ones(32)), new_tokens=5)
    found = fluency(model, written)
    for number, (prompt, reply) in enumerate(zip(written.prompts, written.replies, strict=True)):
        head = f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
        start = len(model.tokenizer(head, add_special_tokens=False)["input_ids"])
        ids = model.tokenizer(head + reply, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logits = model.module(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        literal = np.mean([-float(logits[place - 1, ids[place]]) for place in range(start, len(ids))])
        assert found[number] == pytest.approx(literal, abs=1e-3)


def test_distinct_bigrams():
    assert distinct_bigrams(["a b c d"]) == 1.0
    assert distinct_bigrams(["no no no no no"]) == pytest.approx(1 / 4)
    assert distinct_bigrams(["a b", "x x x"]) == pytest.approx((1 + 1 / 2) / 2)
    assert distinct_bigrams(["", "word"]) == 0.0


def test_only_site_edits_leave_the_prompt_alone(llama):
    assert rewrites_prompt(PrefixEdit(system="a")) and not rewrites_prompt(None)
    assert not rewrites_prompt(edits.add("layers.1.out", torch.ones(32)))
    with maybe_edited(llama, None):
        assert not any(part._forward_hooks for part in llama.module.modules())
