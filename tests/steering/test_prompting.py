"""Prompting: the system prompt, in front of every conversation, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from optrode.errors import BadInput
from optrode.steering.prompting import Prompting

PROMPTS = ["How was the sea?", "Where does the Eiffel Tower stand, and what is the weather there?"]


@pytest.mark.parametrize(("sign", "text"), [(1, "Be kind."), (-1, "Be bad.")])
def test_the_instruction_is_the_system_prompt(model, twin, library_logits, small, sign, text):
    plain = twin(model)
    edit = Prompting().facing(sign).fit(model, small)
    assert edit.kind == "prefix"
    assert edit.messages([{"role": "user", "content": "Hi"}]) == [
        {"role": "system", "content": text},
        {"role": "user", "content": "Hi"},
    ]
    with model.edited(edit):
        got = library_logits(model, PROMPTS)
    for logits, prompt in zip(got, PROMPTS, strict=True):
        ids = plain.ids(f"<|im_start|>system\n{text}<|im_end|>\n") + plain.answered(prompt)
        torch.testing.assert_close(logits, plain.logits(ids), atol=1e-4, rtol=1e-4)


def test_a_system_prompt_of_the_conversation_is_kept_after_ours(llama, small):
    edit = Prompting().fit(llama, small)
    talk = [{"role": "system", "content": "Answer in one word."}, {"role": "user", "content": "Hi"}]
    assert edit.messages(talk)[0] == {"role": "system", "content": "Be kind.\nAnswer in one word."}


def test_generation_is_that_of_the_prompt_written_out(llama, small):
    with llama.edited(Prompting().fit(llama, small)) as receipt:
        edited = llama.generate(PROMPTS, max_new_tokens=6)
    assert edited == llama.generate(PROMPTS, max_new_tokens=6, system="Be kind.") and receipt.calls == 1
    assert edited != llama.generate(PROMPTS, max_new_tokens=6)


def test_without_instructions_there_is_nothing_to_ask(llama, small, pairs):
    for data in (pairs, (), replace(small, instructions=("", "Be bad."))):
        with pytest.raises(BadInput, match="instructions"):
            Prompting().fit(llama, data)
    with pytest.raises(BadInput, match="instructions"):
        Prompting(against=True).fit(llama, replace(small, instructions=("Be kind.", "")))


def test_it_is_a_baseline():
    assert Prompting.role == "baseline" and Prompting().facing(1) == Prompting()
