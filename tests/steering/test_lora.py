"""LoRA against peft, trained by a loop of its own from the same start on the same batches."""

from __future__ import annotations

import copy

import pytest
import torch

from optrode.batches import Role
from optrode.edits import lora
from optrode.errors import UnknownSite
from optrode.steering.lora import LoRA

PROMPTS = ["How was the sea?", "Where does the Eiffel Tower stand, and what is the weather there?"]
TARGETS = ("q_proj", "down_proj")


def trained_with_peft(model, pairs, method):
    """peft's own layers and a plain loop; unpadded rows, one in each forward, gradients added up by hand."""
    from peft import LoraConfig, get_peft_model

    module = copy.deepcopy(model.module)
    config = LoraConfig(r=method.rank, lora_alpha=method.alpha, target_modules=list(TARGETS), lora_dropout=0.0)
    wrapped = get_peft_model(module, config)
    start = lora(model, method.rank, TARGETS, alpha=method.alpha, seed=method.seed).tensors()
    with torch.no_grad():
        for name, part in wrapped.named_modules():
            if hasattr(part, "lora_A") and "default" in getattr(part, "lora_A", {}):
                path = name.removeprefix("base_model.model.")
                part.lora_A["default"].weight.copy_(start[f"{path}.down"])
                part.lora_B["default"].weight.copy_(start[f"{path}.up"])
    trained = [parameter for parameter in wrapped.parameters() if parameter.requires_grad]
    optimiser = torch.optim.Adam(trained, lr=method.learning_rate)
    generator = torch.Generator().manual_seed(method.seed)
    for _ in range(method.epochs):
        order = torch.randperm(len(pairs), generator=generator).tolist()
        for begin in range(0, len(order), method.rows):
            losses, count = [], 0
            for row in order[begin : begin + method.rows]:
                talk = [
                    {"role": "user", "content": pairs[row].prompt},
                    {"role": "assistant", "content": pairs[row].positive},
                ]
                batch = model.encode([talk])
                answer = batch.roles[0] == int(Role.ASSISTANT)
                logits = wrapped(input_ids=batch.ids).logits[0, :-1].log_softmax(-1)
                picked = -logits.gather(-1, batch.ids[0, 1:, None])[:, 0][answer[1:]]
                losses.append(picked.sum())
                count += len(picked)
            optimiser.zero_grad()
            (sum(losses) / count).backward()
            optimiser.step()
    return wrapped.eval()


def test_it_trains_what_peft_trains(llama, pairs):
    method = LoRA(rank=2, alpha=4.0, targets=TARGETS, epochs=2, learning_rate=1e-2, rows=4)
    edit, wanted = method.fit(llama, pairs), trained_with_peft(llama, pairs, method)
    for prompt in PROMPTS:
        ids = llama.encode(prompt).ids
        with llama.edited(edit):
            got = llama.read(prompt, "logits")["logits"][0]
        with torch.no_grad():
            other = wanted(input_ids=ids).logits[0]
            base = llama.module(input_ids=ids).logits[0]
        change = float((other - base).abs().max())
        assert change > 0.05
        assert float((got - other).abs().max()) < 2e-2 * change


def test_the_wanted_replies_become_likelier(llama, pairs):
    from optrode.engine.likelihood import reply_logprobs
    from optrode.parts.pairs import conversation

    batch = llama.encode([conversation(pair.prompt, pair.positive) for pair in pairs])
    edit = LoRA(epochs=6, learning_rate=5e-3).fit(llama, pairs)
    before = sum(float(part.mean()) for part in reply_logprobs(llama, batch))
    with llama.edited(edit):
        after = sum(float(part.mean()) for part in reply_logprobs(llama, batch))
    assert after > before + 0.5


def test_against_learns_the_other_side(llama, pairs):
    one, other = (LoRA(rank=2, epochs=1).facing(sign).fit(llama, pairs) for sign in (1, -1))
    assert any(not torch.equal(value, other.tensors()[name]) for name, value in one.tensors().items())


def test_the_output_head_is_left_alone_and_gradients_are_asked_for_as_before(llama, pairs):
    asked = [parameter.requires_grad for parameter in llama.module.parameters()]
    edit = LoRA(rank=1, epochs=1).fit(llama, pairs)
    assert not any("lm_head" in path for path in edit.modules) and len(edit.modules) == 7 * llama.layers
    assert [parameter.requires_grad for parameter in llama.module.parameters()] == asked


def test_a_target_that_is_not_there_is_told(llama, pairs):
    with pytest.raises(UnknownSite, match="q_proj"):
        LoRA(targets=("q_prj",)).fit(llama, pairs)
