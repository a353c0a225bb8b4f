"""Whatever goes wrong, wherever: the network is what it was, to the last hook, config and bit."""

from __future__ import annotations

import gc
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import optrode as op

_SPEC = importlib.util.spec_from_file_location("optrode_faults", Path(__file__).parent / "faults.py")
assert _SPEC is not None and _SPEC.loader is not None
faults = importlib.util.module_from_spec(_SPEC)
sys.modules["optrode_faults"] = faults
_SPEC.loader.exec_module(faults)

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


class Owner:
    """A network with hooks and a forward of its owner's, and what it answers."""

    def __init__(self, model: op.Model, forward: Any):
        self.model, self.forward = model, forward
        # Other tests leave generators behind that are closed in contexts of their own.
        for variable, clean in faults.CONTEXT.values():
            variable.set(clean)
        block: Any = model.blocks[1]
        self.handles = [
            block.register_forward_pre_hook(lambda *_: None),
            block.register_forward_hook(lambda *_: None, always_call=True),
            model.base.register_forward_pre_hook(lambda *_: None, with_kwargs=True),
        ]
        own = model.blocks[2].forward
        model.blocks[2].forward = lambda *args, **kwargs: own(*args, **kwargs)
        self.batch = model.encode(faults.PROMPTS)
        self.answer = forward(model, self.batch).logits
        # Measured once per network, on the first use.
        faults.resumes(model, faults.random.Random(0), 2)
        self.before = faults.state(model.module)

    def check(self, where: str) -> None:
        left = faults.left_behind(self.model.module, self.before)
        assert not left, (where, left)
        assert torch.equal(self.forward(self.model, self.batch).logits, self.answer), where

    def release(self) -> None:
        for handle in self.handles:
            handle.remove()
        del self.model.blocks[2].__dict__["forward"]


@pytest.fixture(params=["llama"])
def owner(request: pytest.FixtureRequest, make_model: Any, make_mixture: Any, forward: Any) -> Any:
    made = Owner((make_mixture if request.param == "mixtral" else make_model)(request.param), forward)
    # What is there already is not searched for garbage after every fault.
    gc.collect()
    gc.freeze()
    try:
        yield made
    finally:
        gc.unfreeze()
        made.release()


def run(owner: Owner, seeds: range) -> int:
    """Inject a fault for each seed and compare after each; how many came about."""
    count = 0
    for seed in seeds:
        where, blown = faults.inject(owner.model, seed)
        owner.check(where)
        count += blown
    return count


@pytest.mark.parametrize("owner", ["llama", "gpt2", "mixtral"], indirect=True)
def test_a_hundred_faults_leave_nothing(owner: Owner, request: pytest.FixtureRequest):
    first = {"llama": 0, "gpt2": 100, "mixtral": 160}[request.node.callspec.params["owner"]]
    assert run(owner, range(first, first + 60)) > 25


@pytest.mark.slow
@pytest.mark.parametrize("owner", ["llama", "mixtral"], indirect=True)
def test_a_thousand_faults_leave_nothing(owner: Owner):
    assert run(owner, range(1000, 3000)) >= 1000


def test_the_comparison_can_fail(owner: Owner):
    """Each thing that could be left is seen when it is there."""
    block: Any = owner.model.blocks[0]

    def sees(part: str) -> bool:
        return any(part in name for name in faults.left_behind(owner.model.module, owner.before))

    handle = block.register_forward_hook(lambda *_: None)
    assert sees("_forward_hooks")
    handle.remove()
    block.forward = block.forward
    assert sees("attributes")
    del block.__dict__["forward"]
    attention, config = block.self_attn, block.self_attn.config
    attention.config = type(config)()
    assert sees("self_attn.attributes")
    attention.config = config
    for name, (variable, clean) in faults.CONTEXT.items():
        variable.set(1)
        assert sees(name)
        variable.set(clean)
    torch.rand(1)
    assert sees("random")
    torch.random.set_rng_state(torch.frombuffer(bytearray(owner.before["random"]), dtype=torch.uint8))
    owner.check("in the end")
