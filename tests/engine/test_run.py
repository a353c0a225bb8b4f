"""`model.run`: the user's own forward, with roles."""

from __future__ import annotations

import pytest
import torch

import optrode as op
from optrode import edits
from optrode.batches import Role
from optrode.engine.places import RUNNING
from optrode.errors import EditDidNothing, NotSupported

OUT = "layers.1.out"
V = torch.randn(32, generator=torch.Generator().manual_seed(9))


def test_it_is_the_call_of_the_network(model: op.Model, prompts, forward):
    batch = model.encode(prompts)
    output = model.run(batch)
    assert torch.equal(output.logits, forward(model, batch).logits) and output.logits.requires_grad
    assert torch.equal(model.run(prompts).logits, output.logits)
    with torch.no_grad():
        assert not model.run(batch).logits.requires_grad
    labels = torch.where(batch.mask, batch.ids, -100)
    flat = output.logits[:, :-1].flatten(0, 1)
    wanted = torch.nn.functional.cross_entropy(flat, labels[:, 1:].flatten())
    assert torch.allclose(model.run(batch, labels=labels).loss, wanted)
    bare = {"input_ids": batch.ids, "attention_mask": batch.mask.long(), "position_ids": batch.position_ids}
    assert torch.equal(model.run(bare).logits, output.logits)
    assert RUNNING.get() is None


@pytest.mark.parametrize("positions", ["after_instruction", "user", "last_prompt", "span:cat"])
def test_edits_and_recordings_know_the_roles(llama, positions):
    prompts = ["The cat", "And a cat, but a longer text."]
    edit, batch = edits.add(OUT, V, positions), llama.encode(prompts)
    with llama.edited(edit):
        wanted = llama.read(batch, "logits")["logits"]
    with llama.edited(edit) as receipt, llama.recording(OUT, positions=positions) as rec:
        got = llama.run(batch).logits
    assert torch.allclose(got[batch.mask], wanted[batch.mask], atol=1e-5)
    selected = int(op.Positions(positions).in_prompt(batch).sum())
    assert receipt.sites[OUT].selected == selected == len(rec[OUT])
    if positions in ("after_instruction", "user"):
        with pytest.raises(EditDidNothing), llama.edited(edit):
            llama.module(input_ids=batch.ids, attention_mask=batch.mask.long())


@pytest.mark.parametrize("reentrant", [False, True])
def test_training_on_replies_alone(make_model, reentrant):
    """Roles are met again when a checkpointed block runs again after the call."""
    model = make_model("llama")
    model.module.train()
    talks = [
        [{"role": "user", "content": text}, {"role": "assistant", "content": "Sure, here is."}]
        for text in ("Answer", "Where does the Eiffel Tower stand?")
    ]
    batch = model.encode(talks)
    labels = torch.where(batch.roles == Role.ASSISTANT, batch.ids, -100)
    trainable = edits.add("layers.1.mlp.out", V, "assistant").trainable()

    def step():
        trainable.zero_grad()
        with model.edited(trainable):
            loss = model.run(batch, labels=labels).loss
        model.run("Something else.").logits.sum()
        loss.backward()
        return trainable.vector.grad.clone()

    wanted = step()
    model.module.activation_checkpointing_enable({"use_reentrant": reentrant})
    assert torch.allclose(step(), wanted, atol=1e-6) and float(wanted.abs().max()) > 1e-4


def test_networks_without_tokens():
    model = op.load(torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU()))
    trainable = edits.add("module:1", torch.zeros(3)).trainable()
    with model.edited(trainable), model.recording("module:0") as rec:
        model.run(torch.ones(2, 4)).sum().backward()
    assert torch.equal(trainable.vector.grad, torch.full((3,), 2.0)) and rec["module:0"].shape == (2, 3)
    with pytest.raises(NotSupported, match="no tokenizer"):
        model.run("text")
