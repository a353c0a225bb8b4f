"""Blocks that are answered for."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch

import optrode as op
from optrode.engine.bypass import answered


def test_a_function_answers_for_the_first_blocks_in_its_own_context_alone(model: op.Model, prompts: list[str]):
    batch = model.encode(prompts)
    own, asked = model.read(batch, "layers.2.out")["layers.2.out"], []
    found: list[Any] = []

    def answer(index: int, forward: Any, args: tuple, kwargs: dict) -> Any:
        asked.append(index)
        return forward(*args, **kwargs) * 0

    with answered(model, answer, 2):
        inside = model.read(batch, ["layers.1.out", "layers.2.out"])
        thread = threading.Thread(target=lambda: found.append(model.read(batch, "layers.2.out")["layers.2.out"]))
        thread.start()
        thread.join(30)
        with answered(model, lambda index, forward, args, kwargs: forward(*args, **kwargs)):
            assert torch.equal(model.read(batch, "layers.2.out")["layers.2.out"], own), "the innermost answers"
    assert asked == [0, 1] and not bool(inside["layers.1.out"].any()) and not torch.equal(inside["layers.2.out"], own)
    assert torch.equal(found[0], own)
    assert torch.equal(model.read(batch, "layers.2.out")["layers.2.out"], own)
    assert not any("forward" in module.__dict__ for module in model.module.modules())


def test_an_owners_own_forward_comes_back(make_model: Any):
    model = make_model("llama")
    own = model.blocks[0].forward
    model.blocks[0].forward = lambda *args, **kwargs: own(*args, **kwargs)
    mine = model.blocks[0].forward
    with pytest.raises(KeyError), answered(model, lambda index, forward, args, kwargs: forward(*args, **kwargs)):
        raise KeyError
    assert model.blocks[0].forward is mine and "forward" not in model.blocks[1].__dict__
