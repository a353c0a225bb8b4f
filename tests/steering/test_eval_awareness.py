"""Steering between use and testing against its card, done by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import optrode as op
from optrode.data import Categorised
from optrode.data.situations import cued, deployment_pairs
from optrode.errors import BadInput, UnknownName
from optrode.steering.caa import CAA
from optrode.steering.eval_awareness import EvalAwareness, last_said

SYSTEM = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How was the sea?"}]
PROMPTS = [SYSTEM, "Where does the Eiffel Tower stand?"]


def few() -> Categorised:
    data = deployment_pairs()
    return Categorised(data.target[:5], {}, data.neutral[:5])


def at_colon(plain: Any, text: str, layer: int) -> torch.Tensor:
    return plain.stream(plain.ids(f"<|im_start|>user\n{text}"), layer)[-1]


@pytest.mark.parity("eval-awareness")
def test_v_is_the_mean_difference_at_the_colon(model, twin, close):
    plain, data = twin(model), few()
    edit = EvalAwareness(site="layers.*.out").fit(model, data)
    assert [leaf.site for leaf in edit.leaves()] == [f"layers.{n}.out" for n in range(3)]
    for layer, leaf in enumerate(edit.leaves()):
        both = zip(data.target, data.neutral, strict=True)
        rows = [at_colon(plain, use, layer) - at_colon(plain, test, layer) for use, test in both]
        close(leaf.operator.vector, 0.6 * torch.stack(rows).mean(0))


@pytest.mark.parity("eval-awareness")
def test_on_replies_it_is_caa(llama, pairs):
    own = EvalAwareness(site="layers.1.out", scale=1).fit(llama, pairs)
    caa = CAA(site="layers.1.out", form="replies").fit(llama, pairs)
    torch.testing.assert_close(own.operator.vector, caa.operator.vector, atol=1e-6, rtol=1e-5)


def test_the_layers_lie_where_the_papers_do(smollm2):
    assert EvalAwareness().sites(smollm2) == [f"layers.{layer}.out" for layer in (3, 5, 6, 8, 9, 11)]


def templates(tokenizer: Any) -> dict[str, str | None]:
    """Three ways to write a conversation."""
    return {
        "chatml": tokenizer.chat_template,
        "tagged": "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}[assistant] {% endif %}",
        "turns": "{% for m in messages %}### {{ m['role'] }}\n{{ m['content'] }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}### assistant\n{% endif %}",
    }


@pytest.mark.parity("eval-awareness")
@pytest.mark.parametrize("name", ["chatml", "tagged", "turns"])
def test_only_what_user_and_assistant_say_is_touched(make_model, tokenizer, name):
    import copy

    own = copy.deepcopy(tokenizer)
    own.chat_template = templates(tokenizer)[name]
    model = op.load(make_model("llama").module, tokenizer=own)
    edit = EvalAwareness(site="layers.1.out").fit(model, few())
    batch = model.encode(PROMPTS)
    assert not bool(batch.mask.all()) and str(edit.positions) == "dialogue"
    plain = model.read(batch, edit.site)[edit.site]
    with model.edited(edit):
        moved = (model.read(batch, edit.site)[edit.site] - plain).norm(dim=-1) > 0
    said = [model.tokenizer.decode(batch.ids[row][moved[row]]).strip() for row in (0, 1)]
    assert said == ["How was the sea?", "Where does the Eiffel Tower stand?"]


@pytest.mark.parity("eval-awareness")
def test_written_tokens_are_touched_with_and_without_a_cache(model, twin):
    edit = EvalAwareness(site="layers.1.out", scale=3.0).fit(model, few())
    plain, prompt = twin(model), "How was the sea?"
    with model.edited(edit):
        done = model.completions([prompt, PROMPTS[1]], max_new_tokens=5, min_new_tokens=5)[0]
    head, end = len(plain.ids("<|im_start|>user\n")), len(plain.ids(f"<|im_start|>user\n{prompt}"))
    start = len(plain.answered(prompt))

    def change(h: torch.Tensor) -> torch.Tensor:
        h = h.clone()
        h[:, head:end] += edit.operator.vector
        h[:, start:] += edit.operator.vector
        return h

    assert list(done.ids) == plain.written(plain.answered(prompt), 5, 1, "out", change)


def test_a_negative_strength_is_the_other_side(llama):
    data = few()
    there = EvalAwareness(site="layers.1.out").fit(llama, data)
    back = EvalAwareness(site="layers.1.out").fit(llama, Categorised(data.neutral, {}, data.target))
    torch.testing.assert_close(there.operator.vector, -back.operator.vector, atol=1e-6, rtol=1e-5)


def test_the_colon_is_what_is_read(smollm2):
    batch = smollm2.encode(deployment_pairs().target)
    ends = [smollm2.tokenizer.decode([int(row[place])]) for row, place in zip(batch.ids, last_said(batch), strict=True)]
    assert set(ends) == {":"}


def test_cues_share_no_request_and_no_wording():
    kinds = {kind: cued(kind, 30) for kind in ("train", "held out", "reworded")}
    firsts = {kind: {text.split(". ")[0] for side in both for text in side} for kind, both in kinds.items()}
    assert not firsts["train"] & firsts["held out"] and not firsts["held out"] & firsts["reworded"]
    for use, test in kinds.values():
        assert len(set(use)) == len(set(test)) == 30
        assert all(a.split(". ", 1)[1] == b.split(". ", 1)[1] for a, b in zip(use, test, strict=True))
    assert not any("test" in text.lower() or "evaluat" in text.lower() for text in kinds["reworded"][1])


def test_wrong_data_is_one_line(llama):
    data = few()
    for make, error in (
        (lambda: EvalAwareness().fit(llama, Categorised(data.target, {}, data.neutral[:2])), BadInput),
        (lambda: EvalAwareness().fit(llama, Categorised([], {}, data.neutral)), BadInput),
        (lambda: cued("heldout", 2), UnknownName),
    ):
        with pytest.raises(error) as caught:
            make()
        assert "\n" not in str(caught.value)
