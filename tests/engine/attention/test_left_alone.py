"""Nothing is left in the network, and nobody else notices."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
from second_attention import INSIDE, KEYS, PATTERN, attention_of
from torch import nn

import optrode as op
from optrode import edits
from optrode.errors import OptrodeError


def test_an_owner_who_changes_the_config_meanwhile_keeps_it(make_model):

    model = make_model("llama")
    mine = copy.copy(model.config)
    with model.edited(edits.scale(PATTERN, 0.5)):
        model.read("The cat", "logits")
        attention_of(model, 1).config = mine
        model.module(torch.tensor([[1, 2]]))
    assert attention_of(model, 1).config is mine


def configs(network: nn.Module) -> list[tuple[int, str]]:
    held = [module.__dict__["config"] for module in network.modules() if "config" in module.__dict__]
    return [(id(config), config._attn_implementation) for config in held]


def test_the_config_of_the_network_is_never_touched(model: op.Model, prompts: list[str]):
    before, own = configs(model.module), model.config
    with model.edited(edits.scale(PATTERN, 0.5)):
        assert model.config is own and own._attn_implementation == before[0][1]
        assert attention_of(model, 1).config is not own and attention_of(model, 0).config is own
        with model.edited(edits.scale("layers.0.attn.scores", 0.5)):
            model.read(prompts, INSIDE)
            with pytest.raises(OptrodeError), model.edited(edits.add(KEYS, torch.ones(3))):
                model.read(prompts, INSIDE)
        assert attention_of(model, 1).config is not own and attention_of(model, 0).config is own
    assert configs(model.module) == before
    assert not [name for name in own.__dict__ if name.startswith("optrode")]


def test_two_models_may_share_a_network(llama: op.Model, prompts: list[str], forward):
    base = op.load(llama.module.model, tokenizer=llama.tokenizer)
    before, batch = configs(llama.module), llama.encode(prompts)
    own = forward(llama, batch).logits
    with llama.edited(edits.scale(PATTERN, 0.5)):
        once = forward(llama, batch).logits
        base.read(batch, PATTERN)
        assert torch.equal(forward(llama, batch).logits, once)
    assert configs(llama.module) == before and torch.equal(forward(llama, batch).logits, own)


def test_threads_without_a_session_get_the_networks_own_attention(make_model, prompts, forward):
    model = make_model("llama")
    batch = model.encode(prompts)
    own, before = forward(model, batch).logits, configs(model.module)
    with model.edited(edits.scale(PATTERN, 0.5)):
        mine = forward(model, batch).logits
    wrong: list[str] = []
    stop = threading.Event()

    def watches() -> None:
        while not stop.is_set():
            if not torch.equal(forward(model, batch).logits, own):
                wrong.append("watched")

    def edits_too() -> None:
        for _ in range(15):
            with model.edited(edits.scale(PATTERN, 0.25)):
                got = forward(model, batch).logits
            if torch.equal(got, own) or torch.equal(got, mine):
                wrong.append("edited")

    threads = [threading.Thread(target=watches), threading.Thread(target=edits_too)]
    for thread in threads:
        thread.start()
    for _ in range(15):
        with model.edited(edits.scale(PATTERN, 0.5)):
            if not torch.equal(forward(model, batch).logits, mine):
                wrong.append("main")
    stop.set()
    for thread in threads:
        thread.join(60)
    assert not wrong and configs(model.module) == before
