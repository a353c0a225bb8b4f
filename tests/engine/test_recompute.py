"""Checkpointed regions run again in the backward: with the edits of their first pass, and counted once."""

from __future__ import annotations

import threading
from contextlib import contextmanager

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import optrode as op
from optrode import edits
from optrode.engine.hooks import ACTIVE, HOOKS
from optrode.errors import NotSupported

RANDOM = torch.Generator().manual_seed(3)
V = torch.randn(32, generator=RANDOM, dtype=torch.float64)
ROWS = torch.randn(2, 32, generator=RANDOM, dtype=torch.float64)
# The old name, which transformers of all supported releases know.
pytestmark = pytest.mark.filterwarnings("ignore:.gradient_checkpointing_(en|dis)able. is deprecated:FutureWarning")
# Inside a block, at its boundary, and a sum that begins outside of what is run again.
SITES = ["layers.1.mlp.out", "layers.1.attn.heads", "layers.0.out", "layers.2.in", "layers.1.mid", "layers.2.attn.q"]


def made(site: str) -> edits.Trainable:
    if site.endswith("heads"):
        return edits.scale(site, torch.full((8,), 1.5, dtype=torch.float64)).trainable()
    if site.endswith("q"):
        return edits.affine(site, torch.full((8,), 1.2, dtype=torch.float64), V[:8]).trainable()
    return (edits.add(site, V) + edits.project_out(site, ROWS, "last_prompt")).trainable()


@pytest.fixture
def double(make_model) -> op.Model:
    model = make_model("llama", torch.float64)
    model.module.train()
    return model


@contextmanager
def wrapped(model: op.Model, way: str, reentrant: bool):
    """The network with checkpoints put in one of the ways that people put them."""
    base = model.base
    with pytest.MonkeyPatch.context() as patch:
        if way == "transformers":
            model.module.gradient_checkpointing_enable({"use_reentrant": reentrant})
        elif way in ("calls", "nested"):
            # Around the call of a block, so that the block's own hooks run again too.
            for layer in base.layers:
                patch.setattr(layer, "forward", _around(layer.forward, reentrant))
            if way == "nested":
                patch.setattr(base, "forward", _around(base.forward, False, hidden=False))
        elif way == "whole":
            patch.setattr(base, "forward", _around(base.forward, reentrant, hidden=False))
        elif way == "attention":
            for layer in base.layers:
                patch.setattr(layer.self_attn, "forward", _around(layer.self_attn.forward, reentrant, hidden=False))
        try:
            yield
        finally:
            if way == "transformers":
                model.module.gradient_checkpointing_disable()


def _around(forward, reentrant: bool, hidden: bool = True):
    def again(*args, **kwargs):
        def run(*inputs):
            return forward(*inputs, **kwargs)

        return checkpoint(run, *args, use_reentrant=reentrant)

    return again


def forward(model: op.Model, batch) -> torch.Tensor:
    return model.module(
        input_ids=batch.ids, attention_mask=batch.mask.long(), position_ids=batch.position_ids, use_cache=False
    ).logits


def loss_of(logits: torch.Tensor) -> torch.Tensor:
    return logits[:, -1].logsumexp(-1).sum() - logits[:, -1, 77].sum()


def gradients(modules: list[nn.Module]) -> list[torch.Tensor]:
    found = [p.grad.clone() for module in modules for p in module.parameters() if p.grad is not None]
    for module in modules:
        module.zero_grad(set_to_none=True)
    return found


WAYS = [("transformers", False), ("transformers", True), ("calls", False), ("calls", True), ("nested", False),
        ("nested", True), ("whole", False)]  # fmt: skip


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize(("way", "reentrant"), WAYS)
def test_gradients_and_receipts_are_those_without_checkpoints(double, prompts, way, reentrant, site):
    batch, trainable = double.encode(prompts), made(site)
    modules = [trainable, double.module]
    with double.edited(trainable) as plain:
        loss = loss_of(forward(double, batch))
        loss.backward()
    wanted = gradients(modules)
    assert len(wanted) > 10 and float(wanted[0].abs().max()) > 1e-6
    with wrapped(double, way, reentrant), double.edited(trainable) as receipt:
        again = loss_of(forward(double, batch))
        again.backward()
    got = gradients(modules)
    assert torch.equal(loss, again) and len(got) == len(wanted)
    for first, second in zip(got, wanted, strict=True):
        assert torch.allclose(first, second, rtol=1e-9, atol=1e-11)
    assert str(receipt) == str(plain)
    assert ACTIVE.get() == () and len(HOOKS) == 0


@pytest.mark.parametrize(("way", "reentrant"), [("transformers", False), ("transformers", True), ("calls", True)])
@pytest.mark.parametrize("site", ["layers.1.mlp.out", "layers.1.mid"])
def test_a_backward_after_the_block_or_in_another_thread_meets_the_same_edits(double, prompts, way, reentrant, site):
    """Even where another edit is active by then, and hooks are gone afterwards."""
    batch, trainable = double.encode(prompts), made(site)
    with double.edited(trainable):
        loss_of(forward(double, batch)).backward()
    wanted = gradients([trainable, double.module])
    with wrapped(double, way, reentrant):
        for where in ("after", "thread", "other edit"):
            with double.edited(trainable) as receipt:
                loss = loss_of(forward(double, batch))
            before = str(receipt)
            assert len(HOOKS) == 0
            if where == "after":
                loss.backward()
            elif where == "thread":
                thread = threading.Thread(target=loss.backward)
                thread.start()
                thread.join()
            else:
                with double.edited(edits.zero_ablate("layers.*.mlp.out")) as other:
                    loss.backward()
                    calls = other.calls
                    forward(double, batch)
                assert calls == 0
            got = gradients([trainable, double.module])
            assert len(got) == len(wanted)
            for first, second in zip(got, wanted, strict=True):
                assert torch.allclose(first, second, rtol=1e-9, atol=1e-11)
            assert str(receipt) == before and len(HOOKS) == 0


@pytest.mark.parametrize(("way", "reentrant"), [("transformers", False), ("transformers", True)])
@pytest.mark.parametrize("site", ["layers.1.mlp.out", "layers.1.mid"])
def test_two_forwards_before_one_backward_keep_their_own_positions(double, prompts, way, reentrant, site):
    batches = [double.encode(prompts), double.encode(["A much, much longer text than that: and more.", "The"])]
    trainable = (edits.add(site, V, "index:0") + edits.project_out(site, ROWS, "last_prompt")).trainable()

    def run():
        with double.edited(trainable) as receipt:
            sum(loss_of(forward(double, batch)) for batch in batches).backward()
        return gradients([trainable, double.module]), receipt

    wanted, plain = run()
    with wrapped(double, way, reentrant):
        got, receipt = run()
    for first, second in zip(got, wanted, strict=True):
        assert torch.allclose(first, second, rtol=1e-9, atol=1e-11)
    assert str(receipt) == str(plain) and receipt.forwards == 2


def test_a_frozen_network_is_trained_through_where_gradients_can_pass(double, prompts):
    batch, trainable = double.encode(prompts), made("layers.1.mlp.out")
    double.module.requires_grad_(False)
    with double.edited(trainable):
        loss_of(forward(double, batch)).backward()
    wanted = gradients([trainable])
    with wrapped(double, "transformers", False), double.edited(trainable):
        loss_of(forward(double, batch)).backward()
    for first, second in zip(gradients([trainable]), wanted, strict=True):
        assert torch.allclose(first, second)
    double.module.disable_input_require_grads()
    with (
        wrapped(double, "calls", True),
        pytest.raises(NotSupported, match="drops those of the edit"),
        double.edited(trainable),
    ):
        forward(double, batch)
    # transformers lets the embedding ask for gradients by itself.
    for way in ("transformers", "calls"):
        double.module.enable_input_require_grads()
        with wrapped(double, way, True), double.edited(trainable):
            loss_of(forward(double, batch)).backward()
        for first, second in zip(gradients([trainable]), wanted, strict=True):
            assert torch.allclose(first, second)
    assert all(p.grad is None for p in double.module.parameters())


def test_a_sum_in_a_part_of_a_block_that_does_not_get_its_input(double, prompts):
    """Without reentrant checkpoints the graph is the first one, so all is well; with them it cannot be known."""
    batch, trainable = double.encode(prompts), made("layers.1.mid")
    with double.edited(trainable):
        loss_of(forward(double, batch)).backward()
    wanted = gradients([trainable, double.module])
    with pytest.MonkeyPatch.context() as patch:
        layer = double.base.layers[1]

        def attend(hidden_states, own=layer.self_attn.forward, **kwargs):
            return checkpoint(lambda h: own(h, **kwargs), hidden_states, use_reentrant=False)

        patch.setattr(layer.self_attn, "forward", attend)
        with double.edited(trainable):
            loss_of(forward(double, batch)).backward()
    for first, second in zip(gradients([trainable, double.module]), wanted, strict=True):
        assert torch.allclose(first, second, rtol=1e-9, atol=1e-11)


def test_an_edit_entered_inside_a_region_is_entered_again_there_alone(double, prompts):
    batch, outer, inner = double.encode(prompts), made("layers.1.mlp.out"), made("layers.0.attn.out")
    receipts = []

    def run(ids):
        with double.edited(inner) as receipt:
            receipts.append(receipt)
            return double.module(
                input_ids=ids, attention_mask=batch.mask.long(), position_ids=batch.position_ids, use_cache=False
            ).logits

    with double.edited(outer):
        loss_of(run(batch.ids)).backward()
    wanted = gradients([outer, inner, double.module])
    with double.edited(outer) as receipt:
        loss_of(checkpoint(run, batch.ids, use_reentrant=False)).backward()
    for first, second in zip(gradients([outer, inner, double.module]), wanted, strict=True):
        assert torch.allclose(first, second, rtol=1e-9, atol=1e-11)
    assert receipt.calls == 1 and receipts[1].calls == 1 and len(HOOKS) == 0


class Rerun(torch.autograd.Function):
    """A checkpoint of somebody's own making, which no name can tell."""

    @staticmethod
    def forward(ctx, function, h):
        ctx.function, ctx.h = function, h.detach()
        with torch.no_grad():
            return function(h)

    @staticmethod
    def backward(ctx, gradient):
        h = ctx.h.requires_grad_(True)
        with torch.enable_grad():
            out = ctx.function(h)
        torch.autograd.backward(out, gradient)
        return None, h.grad


def test_a_checkpoint_of_another_make_is_edited_and_counted_once(double, prompts):
    batch, trainable = double.encode(prompts), made("layers.1.mlp.out")
    with double.edited(trainable) as plain:
        loss_of(forward(double, batch)).backward()
    wanted = gradients([trainable, double.module])
    layer = double.base.layers[1]
    own = layer.forward
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layer, "forward", lambda h, **kwargs: Rerun.apply(lambda x: own(x, **kwargs), h))
        with double.edited(trainable) as receipt:
            loss_of(forward(double, batch)).backward()
    for first, second in zip(gradients([trainable, double.module]), wanted, strict=True):
        assert torch.allclose(first, second, rtol=1e-9, atol=1e-11)
    assert str(receipt) == str(plain)


@pytest.mark.parametrize("reentrant", [False, True])
def test_reading_with_a_graph_from_a_checkpointed_network(double, prompts, reentrant):
    batch, site = double.encode(prompts), "layers.1.mlp.out"
    acts = double.read(batch, site, grad=True)
    wanted = acts.gradients(acts[site].square().sum())[site]
    with wrapped(double, "transformers", reentrant):
        if reentrant:
            with pytest.raises(NotSupported, match="use_reentrant=False"):
                double.read(batch, site, grad=True)
            return
        acts = double.read(batch, site, grad=True)
        assert torch.equal(acts.gradients(acts[site].square().sum())[site], wanted)
        acts = double.read(batch, ["layers.0.attn.out", site], grad=True)
        (acts[site].square().sum()).backward()
    got = gradients([double.module])
    acts = double.read(batch, ["layers.0.attn.out", site], grad=True)
    (acts[site].square().sum()).backward()
    for first, second in zip(got, gradients([double.module]), strict=True):
        assert torch.allclose(first, second, rtol=1e-9, atol=1e-11)


# Autocast ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("site", ["layers.1.mlp.out", "layers.1.out", "layers.1.mid", "layers.1.attn.heads"])
def test_under_autocast_an_edit_computes_in_float32_and_gives_what_the_network_gives(make_model, prompts, site):
    model = make_model("llama")
    batch = model.encode(prompts)
    width = 8 if site.endswith("heads") else 32
    basis = torch.linalg.qr(ROWS[:, :width].T.float())[0].T.contiguous()
    trainable, seen = edits.project_out(site, basis).trainable(), {}

    def watch(h):
        seen["dtype"], seen["product"] = h.dtype, (h @ basis.T).dtype
        return h - (h @ basis.T) @ basis

    with torch.autocast("cpu", torch.bfloat16):
        outside = model.read(batch, site)[site]
        with model.edited(edits.function(site, watch)):
            by_hand = model.read(batch, site)[site]
        with model.edited(trainable):
            loss = loss_of(forward(model, batch).float())
            ours = model.read(batch, site)[site]
    assert seen == {"dtype": torch.float32, "product": torch.float32}
    assert ours.dtype == outside.dtype == by_hand.dtype
    exact = outside.float() - (outside.float() @ basis.T) @ basis
    # One rounding to eight bits, and for the sum that of the part it is written through.
    absolute = 1e-5 if site != "layers.1.mid" else 1e-2
    assert torch.allclose(ours[batch.mask].float(), exact[batch.mask], atol=absolute, rtol=2**-8)
    loss.backward()
    grad = trainable.basis.grad
    assert grad.dtype == torch.float32 and bool(torch.isfinite(grad).all()) and float(grad.abs().max()) > 0


@pytest.mark.parametrize("reentrant", [False, True])
def test_autocast_and_checkpoints_together(make_model, prompts, reentrant):
    model = make_model("llama")
    model.module.train()
    batch, trainable = model.encode(prompts), edits.add("layers.1.mlp.out", V.float()).trainable()

    def run():
        with model.edited(trainable), torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(forward(model, batch).float())
        loss.backward()
        return loss.detach(), gradients([trainable])[0]

    loss, wanted = run()
    with wrapped(model, "transformers", reentrant):
        again, got = run()
    assert torch.equal(loss, again) and torch.allclose(got, wanted, rtol=1e-3, atol=1e-5)
