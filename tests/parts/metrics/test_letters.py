"""The A/B evaluation on a network of which it is known what it likes: letters alone, or what stands behind them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import optrode as op
from optrode.data import Pair
from optrode.edits import add
from optrode.errors import BadInput
from optrode.parts.metrics.letters import LetterQuestions, ask

PAIRS = [Pair(f"How was the {name}?", "Good.", "Bad.", name) for name in ("sea", "cat", "door")]


def test_each_question_is_asked_both_ways_round():
    plain, swapped = ask(PAIRS[0], False), ask(PAIRS[0], True)
    assert "(A) Good.\n(B) Bad." in plain.prompt and "(A) Bad.\n(B) Good." in swapped.prompt
    assert (plain.positive, plain.negative) == (("A",), ("B",)) == (swapped.negative, swapped.positive)
    assert plain.opening == swapped.opening == "("


@pytest.mark.parity("caa")
def test_probabilities_are_those_of_rows_by_hand(model: op.Model):
    tokenizer, module = model.tokenizer, model.module
    answers = LetterQuestions(model, PAIRS).ask()
    letters = [tokenizer(letter, add_special_tokens=False)["input_ids"][0] for letter in "AB"]
    for number, pair in enumerate(PAIRS):
        found, masses = [], []
        for question, right in ((ask(pair, False), 0), (ask(pair, True), 1)):
            talk = f"<|im_start|>user\n{question.prompt}<|im_end|>\n<|im_start|>assistant\n("
            with torch.no_grad():
                out: Any = module(torch.tensor([tokenizer(talk, add_special_tokens=False)["input_ids"]]))
            p = out.logits[0, -1].double().softmax(-1)[letters].numpy()
            found.append(p[right] / p.sum())
            masses.append(p.sum())
        assert answers.matching[number] == pytest.approx(np.mean(found), rel=1e-3, abs=1e-5)
        assert answers.first[number] == pytest.approx((found[0] + 1 - found[1]) / 2, rel=1e-3, abs=1e-5)
        assert answers.mass[number] == pytest.approx(np.mean(masses), rel=1e-3)
    assert answers.invalid == float((answers.mass < 0.5).mean())


def test_a_push_to_one_letter_is_no_behaviour(decliner_of_letters: Any):
    """The letter goes wherever the push goes, and the matching share stays at a half."""
    model, vector = decliner_of_letters
    questions = LetterQuestions(model, PAIRS, [2])
    plain = questions.ask()
    pushed = questions.ask(add("layers.1.out", vector, "all"))
    assert (pushed.first > 0.99).all() and (plain.first < 0.9).all()
    np.testing.assert_allclose(pushed.matching, 0.5, atol=1e-3)
    np.testing.assert_allclose(plain.matching, 0.5, atol=1e-3)


@pytest.fixture(scope="module")
def decliner_of_letters(tokenizer: Any) -> tuple[op.Model, torch.Tensor]:
    """Blocks that do nothing, so that nothing but the last token counts, and a vector towards the letter A."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=8, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=512, tie_word_embeddings=False, bos_token_id=None, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    module = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        module.model.embed_tokens.weight.mul_(50)
        for block in module.model.layers:
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
        a, b = (tokenizer(letter, add_special_tokens=False)["input_ids"][0] for letter in "AB")
        towards = module.lm_head.weight[a] - module.lm_head.weight[b]
        module.lm_head.weight[a] += 20 * towards / towards.norm()
    return op.load(module, tokenizer=tokenizer), (towards / towards.norm()).detach() * 30


def test_no_pairs_are_refused(llama: op.Model):
    with pytest.raises(BadInput, match="no question"):
        LetterQuestions(llama, [])
