"""Property 3: nothing changes until asked. Bit-equal to the host in every dtype, and no hook left behind."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import nn

import optrode as op
from optrode import edits
from optrode.engine.hooks import ACTIVE
from optrode.engine.reading.read import residuals
from optrode.errors import OptrodeError

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
V = torch.randn(32, generator=torch.Generator().manual_seed(5))
OUT = "layers.1.out"
DICTIONARIES = (
    "_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs",
    "_forward_hooks_always_called", "_backward_hooks", "_backward_pre_hooks",
)  # fmt: skip


def state(network: nn.Module) -> dict[str, Any]:
    """Everything that an edit or a read could have left behind, in every module."""
    found = {}
    for path, module in network.named_modules():
        for name in DICTIONARIES:
            found[path, name] = list(getattr(module, name).items())
        # A forward of its own is an attribute that shadows the one of the class.
        found[path, "own"] = sorted(module.__dict__)
        found[path, "forward"] = module.__dict__.get("forward")
        found[path, "call"] = module.__dict__.get("_compiled_call_impl")
        found[path, "training"] = module.training
        config = module.__dict__.get("config")
        found[path, "config"] = id(config), getattr(config, "_attn_implementation", None)
    found["config"] = str(getattr(network, "config", None))
    found["grads"] = [parameter.requires_grad for parameter in network.parameters()]
    found["versions"] = [parameter._version for parameter in network.parameters()]
    return found


class Owner:
    """A user with hooks of their own at the very modules that are edited, and what these hooks saw."""

    def __init__(self, network: nn.Module, block: nn.Module):
        self.seen: list[str] = []
        self.values: list[torch.Tensor] = []
        self.handles = [
            block.register_forward_pre_hook(lambda *_: self.seen.append("block before")),
            block.register_forward_hook(self._first),
            block.register_forward_hook(lambda *_: self.seen.append("block after, second")),
            network.register_forward_pre_hook(lambda *_: self.seen.append("network before")),
        ]

    def _first(self, _: nn.Module, args: tuple, output: torch.Tensor) -> None:
        self.seen.append("block after, first")
        self.values.append(output.detach().clone())

    def release(self) -> None:
        for handle in self.handles:
            handle.remove()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen3"])
def test_the_output_is_the_hosts_own_bit_for_bit(name: str, dtype: torch.dtype, make_model, prompts, forward):
    model = make_model(name, dtype)
    batch = model.encode(prompts)
    own, before = forward(model, batch).logits, state(model.module)
    assert own.dtype == dtype and bool(torch.isfinite(own[batch.mask]).all())

    def untouched() -> None:
        assert torch.equal(forward(model, batch).logits, own) and state(model.module) == before

    # While reading, at every site there is.
    acts = model.read(batch, list(model.sites))
    assert torch.equal(acts["logits"], own)
    untouched()
    # With strength 0, and with an edit at another network.
    other = make_model(name, dtype, seed=1)
    with model.edited(edits.add(OUT, V) * 0):
        untouched()
        assert torch.equal(model.read(batch, "logits")["logits"], own)
    with other.edited(edits.add(OUT, V)):
        untouched()
        other.read("a", OUT)
    # In a thread that has no context.
    found = []
    with model.edited(edits.add(OUT, V)):
        thread = threading.Thread(target=lambda: found.append(forward(model, batch).logits))
        thread.start()
        thread.join(30)
        assert torch.equal(found[0], own)
        assert not torch.equal(forward(model, batch).logits, own), "while here it is edited"
    # After edits, resumes and generation.
    untouched()
    with model.edited(edits.scale("layers.*.mid", 2.0)):
        model.read(residuals(model, batch, [1, 2]), "logits", positions="last_prompt")
        model.generate(prompts, max_new_tokens=2)
    residuals(model, batch, [1, 2])
    model.read(batch, "layers.0.out", grad=True).gradients(torch.zeros((), requires_grad=True))
    untouched()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_written_tokens_are_the_hosts_own_while_it_is_read(dtype: torch.dtype, make_model, prompts: list[str]):
    model = make_model("llama", dtype)
    batch = model.encode(prompts)
    arguments = {"input_ids": batch.ids, "attention_mask": batch.mask.long(), "max_new_tokens": 5, "do_sample": False}
    own = model.module.generate(**arguments)
    with model.edited(edits.add(OUT, V) * 0):
        assert torch.equal(model.module.generate(**arguments), own)
    model.read(prompts, "layers.*.out")
    assert torch.equal(model.module.generate(**arguments), own)


def test_an_edit_that_is_the_identity_changes_no_bit(model: op.Model, prompts: list[str], forward):
    batch = model.encode(prompts)
    own = forward(model, batch).logits
    for edit in (
        edits.scale("layers.*.out", 1.0),
        edits.function("layers.*.attn.heads", lambda rows: rows),
        edits.function("layers.*.attn.pattern", lambda rows: rows.clone()),
        edits.scale("layers.*.attn.{q_rotated,k_rotated,scores}", 1.0),
        edits.add(OUT, 0 * V),
    ):
        with model.edited(edit):
            assert torch.equal(forward(model, batch).logits, own)


class Mine(Exception):
    pass


def broken(rows: torch.Tensor) -> torch.Tensor:
    raise Mine


def interrupted(rows: torch.Tensor) -> torch.Tensor:
    raise KeyboardInterrupt


EDIT = edits.add(OUT, V) + edits.add("layers.2.mid", V) + edits.scale("layers.1.attn.pattern", 0.5)


def leaves_normally(model: op.Model) -> None:
    with model.edited(EDIT):
        model.read("The cat", "logits")


def raises_in_the_body(model: op.Model) -> None:
    with pytest.raises(Mine), model.edited(EDIT):
        model.read("The cat", "logits")
        raise Mine


def raises_in_the_operator(model: op.Model) -> None:
    with pytest.raises(Mine), model.edited(EDIT), model.edited(edits.function("layers.0.attn.heads", broken)):
        model.read("The cat", "logits")


def raises_inside_attention(model: op.Model) -> None:
    for site in ("q_rotated", "k_rotated", "scores", "pattern"):
        with pytest.raises(Mine), model.edited(EDIT), model.edited(edits.function(f"layers.1.attn.{site}", broken)):
            model.read("The cat", "logits")


def raises_in_the_operator_of_a_read_that_would_stop(model: op.Model) -> None:
    with pytest.raises(Mine), model.edited(edits.function("layers.0.out", broken)):
        model.read(residuals(model, model.encode("The cat"), [1]), "layers.0.out")


def is_interrupted(model: op.Model) -> None:
    with pytest.raises(KeyboardInterrupt), model.edited(EDIT + edits.function("layers.0.out", interrupted)):
        model.generate("The cat", max_new_tokens=2)


def is_interrupted_while_resuming(model: op.Model) -> None:
    kept = residuals(model, model.encode("The cat"), [1, 2])
    with pytest.raises(KeyboardInterrupt), model.edited(edits.function("layers.2.out", interrupted)):
        model.read(kept, "logits", positions="last_prompt")


def stops_early(model: op.Model) -> None:
    model.read("The cat", "layers.0.out")
    with model.edited(EDIT):
        model.read("The cat", "layers.2.out")
        model.read("The cat", "layers.1.attn.pattern")
        model.read("The cat", "embed")


def did_nothing(model: op.Model) -> None:
    with pytest.raises(OptrodeError), model.edited(EDIT):
        pass


def is_refused_while_entering(model: op.Model) -> None:
    for wrong in (edits.add(OUT, torch.ones(3)), edits.add("layers.9.out", V), edits.Edit()):
        with pytest.raises(OptrodeError), model.edited(EDIT, wrong):
            pass


def nests(model: op.Model) -> None:
    with model.edited(EDIT):
        with model.edited(EDIT, edits.scale("layers.0.out", 2.0)):
            model.read("The cat", "logits")
        inside = state(model.module)
        with pytest.raises(Mine), model.edited(EDIT):
            model.read("The cat", "logits")
            raise Mine
        assert state(model.module) == inside
        model.read("The cat", "logits")


def is_a_generator_closed_midway(model: op.Model) -> None:
    def reads():
        with model.edited(EDIT):
            for prompt in ("The cat", "dog"):
                yield model.read(prompt, "logits")

    generator = reads()
    next(generator)
    generator.close()
    another = reads()
    next(another)
    del another


def is_called_by_a_thread_that_dies(model: op.Model) -> None:
    def work() -> None:
        with pytest.raises(Mine), model.edited(EDIT):
            model.read("The cat", "logits")
            raise Mine

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(30)


@pytest.mark.parametrize(
    "way",
    [
        leaves_normally, raises_in_the_body, raises_in_the_operator, raises_inside_attention,
        raises_in_the_operator_of_a_read_that_would_stop, is_interrupted, is_interrupted_while_resuming, stops_early,
        did_nothing, is_refused_while_entering, nests, is_a_generator_closed_midway, is_called_by_a_thread_that_dies,
    ],
)  # fmt: skip
def test_whatever_ends_it_nothing_is_left(way, model: op.Model, block, forward):
    batch = model.encode("The cat")
    own = forward(model, batch).logits
    owner = Owner(model.base, block(model, 1))
    try:
        before = state(model.module)
        way(model)
        assert state(model.module) == before and ACTIVE.get() == ()
        owner.seen.clear()
        assert torch.equal(forward(model, batch).logits, own)
        assert owner.seen == ["network before", "block before", "block after, first", "block after, second"]
    finally:
        owner.release()


def test_the_owners_hooks_fire_in_their_order_and_see_the_edit(model: op.Model, block, forward):
    batch = model.encode("The cat")
    h = model.read(batch, OUT)[OUT]
    owner = Owner(model.base, block(model, 1))
    try:
        with model.edited(edits.add(OUT, V)):
            forward(model, batch)
        forward(model, batch)
    finally:
        owner.release()
    assert owner.seen == ["network before", "block before", "block after, first", "block after, second"] * 2
    assert torch.equal(owner.values[0], h + V) and torch.equal(owner.values[1], h)


def test_the_owners_hook_before_a_block_sees_the_edited_input(model: op.Model, block, forward):
    batch = model.encode("The cat")
    h, seen = model.read(batch, "layers.1.in")["layers.1.in"], []
    handle = block(model, 1).register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
    try:
        with model.edited(edits.add("layers.1.in", V)):
            forward(model, batch)
    finally:
        handle.remove()
    assert torch.equal(seen[0], h + V)


def test_a_network_that_is_deleted_is_not_kept_alive(make_model):
    import gc
    import weakref

    model = make_model("gpt2")
    with model.edited(edits.add(OUT, V)):
        model.read("The cat", "logits")
    residuals(model, model.encode("The cat"), [1])
    gone = weakref.ref(model.module)
    del model
    gc.collect()
    assert gone() is None


def test_modes_of_torch_are_as_they_were(llama: op.Model):
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            llama.read("The cat", OUT)
            llama.read("The cat", OUT, grad=True)
            llama.generate("The cat", max_new_tokens=1)
            assert torch.is_grad_enabled() == grad
    llama.module.train()
    try:
        llama.read("The cat", OUT)
        assert llama.module.training
    finally:
        llama.module.eval()
