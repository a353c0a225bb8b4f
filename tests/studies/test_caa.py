"""The CAA study on networks of which it is known what a letter can do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

import optrode as op
from optrode.data import Behaviour, Choice, Pair
from optrode.engine.progress import Steps
from optrode.parts.pairs import Letters
from optrode.parts.statistics import Interval
from optrode.parts.study import overall
from optrode.studies import caa

SIZE = caa.Size(fit=4, choose=2, test=3, random_vectors=20, shuffles=20, written=3, new_tokens=4)


class Ears:
    """A judge of fixed merit that counts a letter: enough to see that replies reach it."""

    accuracy, trusted = 0.9, True

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([float("a" in text) for text in texts])

    def describe(self) -> dict[str, Any]:
        return {"name": "ears"}


@pytest.fixture(scope="module")
def data() -> Behaviour:
    pairs = tuple(
        Pair(f"The {name} {number}?", f"good {number}", f"bad {number}", name)
        for name in ("cat", "dog", "mat", "door", "tower", "word", "user", "weather", "capital")
        for number in range(4)
    )
    test = tuple(Choice(f"The {name}?", "It", (" is",), (" was",), name) for name in ("sun", "sea", "sky"))
    return Behaviour("test", "", ("good", "bad"), ("Say good.", "Say bad."), pairs, test, test, ())


@pytest.fixture(scope="module")
def parrot(tokenizer: Any) -> op.Model:
    """A network without any block that does something: each token makes its own repetition likelier, no more."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=8, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=512, tie_word_embeddings=True, bos_token_id=None, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    module = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        module.model.embed_tokens.weight.copy_(
            torch.randn(len(tokenizer), 64, generator=torch.Generator().manual_seed(0))
        )
        module.model.norm.weight.fill_(0.02)
        for block in module.model.layers:
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
    return op.load(module, tokenizer=tokenizer)


def always_first(pairs: Sequence[Pair]) -> list[Letters]:
    """Questions in which the showing reply is always (A): the letter itself becomes the behaviour."""
    return [Letters(f"{pair.prompt} (A) {pair.positive} (B) {pair.negative}", "(A", "(B") for pair in pairs]


def experiment(model: op.Model, data: Behaviour) -> list[Any]:
    with Steps("a test") as steps:
        split = caa.split_by_subject(data.fit, SIZE)
        return caa.experiment(model, data, split, SIZE, 0, steps, judge=Ears())  # type: ignore[arg-type]


def test_a_planted_effect_is_reproduced(parrot: op.Model, data: Behaviour, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optrode.steering.caa.as_letters", always_first)
    monkeypatch.setattr("optrode.studies.caa.as_letters", always_first)
    found = experiment(parrot, data)
    assert found[0].verdict == overall(found) == "reproduced"
    assert found[0].numbers["effect"]["value"] > 0.1


def test_with_letters_balanced_the_same_network_has_no_effect_left(parrot: op.Model, data: Behaviour) -> None:
    found = experiment(parrot, data)
    assert found[0].verdict == overall(found) == "not reproduced"
    assert abs(found[0].numbers["effect"]["value"]) < 1e-4


def test_a_random_network_is_not_reproduced(llama: op.Model, data: Behaviour) -> None:
    found = experiment(llama, data)
    assert overall(found) != "reproduced"
    assert set(found[0].numbers["by_layer"]) and len(found[0].numbers["random"]) == 20


def test_subjects_are_in_one_split_only_and_letters_balanced() -> None:
    split = caa.split_by_subject(op.data.pairs("sentiment"), caa.Size())
    groups = [{item.group for item in part} for part in (split.fit, split.choose, split.test)]
    assert [len(part) for part in groups] == [12, 4, 8]
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]
    assert [len(part) for part in (split.fit, split.choose, split.test)] == [120, 40, 80]
    for part in (split.choose, split.test):
        right = [choice.positive[0] for choice in part]
        assert right.count("A") == right.count("B") == len(part) // 2
        assert all({*choice.positive, *choice.negative} == {"A", "B"} and choice.opening == "(" for choice in part)


def test_the_matching_letter_stands_before_the_showing_reply(data: Behaviour) -> None:
    for choice, pair in zip(caa.as_choices(data.fit), data.fit, strict=True):
        assert f"({choice.positive[0]}) {pair.positive}\n" in choice.prompt
        assert f"({choice.negative[0]}) {pair.negative}\n" in choice.prompt


def test_the_effect_is_a_difference_of_probabilities_by_hand(llama: op.Model, data: Behaviour) -> None:
    questions = caa.as_choices(data.fit[:4])
    edit = op.edits.add("layers.1.out", torch.ones(32), "after_instruction")
    found = caa.two_sided(llama, caa.ForcedChoice(llama, questions, [1, 2]), edit)
    letters = [llama.tokenizer.convert_tokens_to_ids(letter) for letter in "AB"]
    for value, choice in zip(found, questions, strict=True):
        talk = [{"role": "user", "content": choice.prompt}, {"role": "assistant", "content": "("}]
        sides = []
        for sign in (1, -1):
            with llama.edited(edit * sign):
                both = llama.read([talk], "logits", positions="last_prompt")["logits"][0, letters].softmax(-1)
            sides.append(float(both[0 if choice.positive == ("A",) else 1]))
        assert value == pytest.approx(sides[0] - sides[1], abs=1e-5)


def test_controls_have_the_vectors_norm_and_place(llama: op.Model) -> None:
    edit = op.edits.add("layers.1.out", 3 * torch.ones(32), "after_instruction")
    one, other = caa.random_like(edit, 1), caa.random_like(edit, 2)
    assert (one.site, one.positions) == (edit.site, edit.positions)
    assert float(caa.vector_of(one).norm()) == pytest.approx(float(caa.vector_of(edit).norm()), rel=1e-5)
    assert not torch.equal(caa.vector_of(one), caa.vector_of(other))
    zero = op.edits.add("layers.1.out", torch.zeros(32))
    assert not bool(caa.vector_of(caa.as_long_as(edit, zero)).any())


def test_the_rule_is_the_cards() -> None:
    """The interval's low end must exceed the 95th percentile of both baselines."""
    own = Interval(0.3, 0.2, 0.4)
    low, high = [0.0] * 20, [0.0] * 18 + [0.5] * 2

    def verdict(random: list[float], shuffled: list[float], own: Interval = own) -> str:
        return caa.moves_the_choice(own, random, shuffled, 3, {}).verdict

    assert verdict(low, low) == "reproduced"
    assert verdict(high, low) == verdict(low, high) == "direction only"
    assert verdict(low, low, Interval(0.3, -0.1, 0.7)) == "not reproduced"
    # One outlier among twenty is not the 95th percentile.
    assert verdict([0.0] * 19 + [0.5], low) == "reproduced"


def test_an_untrusted_judge_confirms_nothing(parrot: op.Model, data: Behaviour) -> None:
    judge = Ears()
    judge.accuracy, judge.trusted = 0.6, False  # type: ignore[misc]
    edit = op.edits.add("layers.1.out", torch.ones(64), "after_instruction")
    with Steps("a test") as steps:
        found = caa.moves_replies(parrot, data, edit, SIZE, 0, steps, judge)  # type: ignore[arg-type]
    assert found.verdict == "not reproduced" and not found.essential and "not good enough" in found.measured
