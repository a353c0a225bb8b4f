"""Few-shot prompting: the examples written out in front of the conversation, and nothing else."""

from __future__ import annotations

import pytest
import torch

from optrode.errors import BadInput
from optrode.steering.few_shot import FewShot

PROMPTS = ["How was the sea?", "Where does the Eiffel Tower stand, and what is the weather there?"]


@pytest.mark.parametrize(("sign", "side"), [(1, "positive"), (-1, "negative")])
def test_logits_are_those_of_the_examples_written_out(model, twin, library_logits, pairs, sign, side):
    plain = twin(model)
    edit = FewShot(count=2).facing(sign).fit(model, pairs)
    step = len(pairs) // 2
    shown = [pairs[0], pairs[step]]
    assert edit.turns == tuple(
        turn for pair in shown for turn in (("user", pair.prompt), ("assistant", getattr(pair, side)))
    )
    front = "".join(
        f"<|im_start|>user\n{pair.prompt}<|im_end|>\n<|im_start|>assistant\n{getattr(pair, side)}<|im_end|>\n"
        for pair in shown
    )
    with model.edited(edit):
        got = library_logits(model, PROMPTS)
    for logits, prompt in zip(got, PROMPTS, strict=True):
        ids = plain.ids(front) + plain.answered(prompt)
        torch.testing.assert_close(logits, plain.logits(ids), atol=1e-4, rtol=1e-4)


def test_examples_come_from_as_many_groups_as_there_are(llama, pairs):
    edit = FewShot(count=3).fit(llama, [pair for pair in pairs for _ in range(4)])
    asked = [content for role, content in edit.turns if role == "user"]
    assert len(set(asked)) == 3
    assert len(FewShot(count=100).fit(llama, pairs).turns) == 2 * len(pairs)


def test_no_example_is_refused(llama, pairs):
    with pytest.raises(BadInput, match="at least 1 example"):
        FewShot(count=0).fit(llama, pairs)


def test_it_is_a_baseline():
    assert FewShot.role == "baseline" and FewShot().facing(1) == FewShot()
