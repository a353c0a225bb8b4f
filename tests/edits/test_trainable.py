"""Edits that are trained, each against a hand-written forward with parameters of its own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import optrode as op
from optrode import edits
from optrode.engine.hooks import HOOKS
from optrode.errors import BadInput, NotFinite, NotSupported, UnknownName, WrongShape

OUT = "layers.1.out"
RANDOM = torch.Generator().manual_seed(11)
V, U = torch.randn(2, 32, generator=RANDOM).unbind()
ROWS, WEIGHT = torch.randn(2, 3, 32, generator=RANDOM).unbind()
SHIFT = torch.randn(3, generator=RANDOM)


def rows_of(raw: torch.Tensor) -> torch.Tensor:
    """Orthonormal rows by Gram-Schmidt, as QR gives them, by hand."""
    done: list[torch.Tensor] = []
    for row in raw:
        for other in done:
            row = row - (row @ other) * other
        done.append(row / row.norm())
    return torch.stack(done)


# The edit, and what it does to h with its tensors by name: a second implementation.
TWINS = {
    "add": (edits.add(OUT, V), lambda h, p: h + p["vector"]),
    "scaled add": (edits.add(OUT, V) * -0.5, lambda h, p: h - 0.5 * p["vector"]),
    "scale": (edits.scale(OUT, U), lambda h, p: h * p["factor"]),
    "affine": (edits.affine(OUT, U, V), lambda h, p: p["weight"] * h + p["bias"]),
    "project out": (
        edits.project_out(OUT, ROWS),
        lambda h, p: h - torch.einsum("btw,rw,rv->btv", h, rows_of(p["basis"]), rows_of(p["basis"])),
    ),
    "low rank": (
        edits.low_rank(OUT, ROWS, WEIGHT, SHIFT),
        lambda h, p: h + (torch.einsum("btw,rw->btr", h, p["down"]) + p["bias"]) @ p["up"],
    ),
    "subspace": (
        edits.subspace(OUT, ROWS, WEIGHT, SHIFT),
        lambda h, p: h + (h @ p["weight"].T + p["bias"] - h @ rows_of(p["basis"]).T) @ rows_of(p["basis"]),
    ),
    "gated": (
        edits.gated(OUT, V, U, 0.3),
        lambda h, p: h + ((h * p["gate"]).sum(-1, keepdim=True) + p["bias"]).sigmoid() * p["vector"],
    ),
    "sum": (
        edits.add(OUT, V) + edits.scale(OUT, U) * 2,
        lambda h, p: h + p["0.vector"] + 2 * (h * p["1.factor"] - h),
    ),
    "chain": (
        (edits.add(OUT, V) >> edits.scale(OUT, U)) * 0.5,
        lambda h, p: h + 0.5 * ((h + p["0.vector"]) * p["1.factor"] - h),
    ),
}


def logits_of(model: op.Model, batch) -> torch.Tensor:
    return model.module(
        input_ids=batch.ids, attention_mask=batch.mask.long(), position_ids=batch.position_ids, use_cache=False
    ).logits


def loss_of(logits: torch.Tensor) -> torch.Tensor:
    return logits[:, -1].logsumexp(-1).mean() - logits[:, -1, 77].mean()


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("kind", TWINS)
def test_three_steps_of_training_are_those_of_a_hand_written_forward(
    make_model, prompts, block, rewritten, kind, frozen
):
    model = make_model("llama", torch.float64)
    edit, twin = TWINS[kind]
    edit = edit.with_tensors({name: value.double() for name, value in edit.tensors().items()})
    batch = model.encode(prompts)
    model.module.requires_grad_(not frozen)
    trainable = edit.trainable()
    own = {name: nn.Parameter(value.detach().clone()) for name, value in edit.tensors().items()}
    theirs = torch.optim.Adam(own.values(), lr=0.05)
    ours = torch.optim.Adam(trainable.parameters(), lr=0.05)
    weight = model.base.layers[0].self_attn.q_proj.weight
    for _ in range(3):
        model.module.zero_grad()
        theirs.zero_grad()
        with rewritten(block(model, 1), lambda h: twin(h, own)):
            wanted = loss_of(logits_of(model, batch))
        wanted.backward()
        gradient = None if weight.grad is None else weight.grad.clone()
        theirs.step()
        model.module.zero_grad()
        ours.zero_grad()
        with model.edited(trainable) as receipt:
            loss = loss_of(logits_of(model, batch))
            loss.backward()
        ours.step()
        assert torch.allclose(loss, wanted, rtol=1e-10)
        assert receipt.calls == 1 and not any(torch.is_tensor(v) and v.requires_grad for v in vars(receipt).values())
        for site in receipt.sites.values():
            assert not any(isinstance(value, torch.Tensor) and value.requires_grad for value in vars(site).values())
        assert (weight.grad is None) if frozen else torch.allclose(weight.grad, gradient, rtol=1e-8, atol=1e-12)
    for name, value in trainable.named_parameters():
        assert torch.allclose(value, own[name], rtol=1e-8, atol=1e-10)
        assert not torch.allclose(value, edit.tensors()[name].double(), rtol=1e-3)
    assert len(HOOKS) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_many_steps_in_one_block_see_each_step(make_model, prompts, dtype):
    """The optimiser moves the tensors between two forwards of one block, also where the network's dtype is another."""
    model = make_model("llama", dtype)
    batch = model.encode(prompts)
    trainable = edits.add(OUT, V).trainable()
    optimiser, losses = torch.optim.SGD(trainable.parameters(), lr=5.0), []
    with model.edited(trainable):
        for _ in range(4):
            loss = loss_of(logits_of(model, batch).float())
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0] - 0.1
    assert trainable.vector.dtype == torch.float32


def test_positions_and_padding_choose_what_is_trained(llama, prompts, block, rewritten):
    """The gradient of a batch is the sum of those of its rows alone, so padding gets none."""
    trainable = edits.add(OUT, V, "index:0,-2").trainable()
    with llama.edited(trainable):
        logits_of(llama, llama.encode(prompts))[:, -1].logsumexp(-1).sum().backward()
    whole, total = trainable.vector.grad.clone(), torch.zeros(32)
    for prompt in prompts:
        trainable.zero_grad()
        with llama.edited(trainable):
            logits_of(llama, llama.encode([prompt]))[:, -1].logsumexp(-1).sum().backward()
        total += trainable.vector.grad
    assert torch.allclose(whole, total, atol=1e-5) and float(whole.abs().max()) > 1e-3


def test_several_at_once_and_in_sums_with_others(make_model, prompts):
    model = make_model("gpt2", torch.float64)
    batch = model.encode(prompts)
    first = edits.add(OUT, V.double()).trainable()
    second = edits.scale("layers.0.mlp.out", U.double(), heads=None).trainable()
    heads = edits.affine("layers.2.attn.heads", V[:8].double(), U[:8].double(), heads=(1, 2)).trainable()
    modules = nn.ModuleList([first, second, heads])

    def step(*entered):
        modules.zero_grad()
        with model.edited(*entered):
            loss_of(logits_of(model, batch)).backward()
        return [p.grad.clone() for p in modules.parameters()]

    apart = step(first, second, heads)
    together = step(first.edit + second.edit + heads.edit * 1)
    with model.edited(first):
        inside = step(second, heads)
    for one, two, three in zip(apart, together, inside, strict=True):
        assert torch.allclose(one, two, atol=1e-12) and torch.allclose(one, three, atol=1e-12)
        assert float(one.abs().max()) > 1e-6


def test_some_fields_alone_and_names(llama):
    trainable = edits.affine(OUT, U, V).trainable("bias")
    assert [name for name, _ in trainable.named_parameters()] == ["bias"]
    assert sorted(trainable.state_dict()) == ["bias", "weight"]
    both = (edits.add(OUT, V) + edits.project_out(OUT, ROWS)).trainable()
    assert sorted(both.state_dict()) == ["0.vector", "1.basis"]
    with pytest.raises(UnknownName, match="did you mean bias"):
        edits.affine(OUT, U, V).trainable("bais")
    other = edits.affine(OUT, U * 0, V * 0).trainable()
    other.load_state_dict(edits.affine(OUT, U, V).trainable().state_dict())
    assert torch.equal(other.frozen().operator.weight, U)


def test_what_holds_nothing_to_train_says_so(llama):
    blind = edits.knockout("layers.0.attn.scores", "all")
    for edit in (edits.function(OUT, torch.tanh), edits.prompt("Be brief."), blind):
        with pytest.raises(BadInput, match="no tensors to train"):
            edit.trainable()
    with pytest.raises(NotSupported, match=r"model\.edited"):
        edits.add(OUT, V).trainable()(V)
    with pytest.raises(WrongShape), llama.edited(edits.add(OUT, V[:5]).trainable()):
        pass


def test_a_function_that_is_a_module_is_trained_as_it_is(make_model, prompts, block, rewritten):
    model = make_model("llama", torch.float64)
    batch = model.encode(prompts)
    gate = nn.Sequential(nn.Linear(32, 32), nn.Tanh()).double()
    with rewritten(block(model, 1), gate):
        loss_of(logits_of(model, batch)).backward()
    wanted = gate[0].weight.grad.clone()
    gate.zero_grad()
    with model.edited(edits.function(OUT, gate)):
        loss_of(logits_of(model, batch)).backward()
    # Padding goes through the hand-written hook too, but nothing looks at it.
    assert torch.allclose(gate[0].weight.grad, wanted, atol=1e-10)


def test_a_frozen_edit_is_a_plain_one_that_can_be_saved(llama, prompts, tmp_path):
    edit = edits.add(OUT, V)
    trainable = edit.trainable()
    assert trainable.frozen().provenance.fingerprint == {}, "nobody knows on which model"
    with llama.edited(trainable):
        loss_of(logits_of(llama, llama.encode(prompts))).backward()
    torch.optim.SGD(trainable.parameters(), lr=1.0).step()
    frozen = trainable.frozen(steps=1, data="none")
    assert isinstance(frozen, edits.SiteEdit) and not frozen.operator.vector.requires_grad
    assert torch.equal(frozen.operator.vector, trainable.vector) and torch.equal(edit.operator.vector, V)
    assert frozen.provenance.fingerprint == {"name": llama.name, **llama.fingerprint}
    assert frozen.provenance.recipe == {"method": "trained", "steps": 1, "data": "none"}
    assert frozen.provenance.equations == {OUT: llama.table[OUT].equation}
    loaded = op.load_edit(frozen.save(tmp_path / "a.edit"))
    with llama.edited(trainable), torch.no_grad():
        wanted = logits_of(llama, llama.encode(prompts))
    with llama.edited(loaded), torch.no_grad():
        assert torch.equal(logits_of(llama, llama.encode(prompts)), wanted)
    before = frozen.operator.vector.clone()
    torch.optim.SGD(trainable.parameters(), lr=1.0).step()
    assert torch.equal(frozen.operator.vector, before) and not torch.equal(trainable.vector, before)


def test_rows_stay_orthonormal_however_far_the_optimiser_goes(llama, prompts):
    trainable = edits.subspace(OUT, ROWS).trainable()
    optimiser = torch.optim.Adam(trainable.parameters(), lr=0.3)
    batch = llama.encode(prompts)
    with llama.edited(trainable):
        plain = logits_of(llama, batch).detach()
        for _ in range(5):
            loss = loss_of(logits_of(llama, batch))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    with torch.no_grad():
        assert torch.allclose(plain[batch.mask], logits_of(llama, batch)[batch.mask], atol=1e-4), "begins as it is"
    raw = trainable.basis.detach()
    assert not torch.allclose(raw @ raw.T, torch.eye(3), atol=1e-2)
    basis = trainable.frozen().operator.basis
    assert torch.allclose(basis @ basis.T, torch.eye(3), atol=1e-5)


def test_a_training_that_diverges_is_found(llama, prompts):
    trainable = edits.add(OUT, V).trainable()
    with torch.no_grad():
        trainable.vector[3] = torch.nan
    with pytest.raises(NotFinite), llama.edited(trainable):
        logits_of(llama, llama.encode(prompts))


def test_training_reads_and_writes_through_the_engine_too(llama, prompts):
    trainable = edits.add(OUT, V).trainable()
    with llama.edited(trainable):
        acts = llama.read(prompts, "layers.2.out", positions="last_prompt", grad=True)
        acts["layers.2.out"].square().mean().backward()
        assert len(llama.generate(prompts, max_new_tokens=2)) == 3
    assert float(trainable.vector.grad.abs().max()) > 0


def test_no_graph_outlives_its_loss(llama, prompts):
    """What a block remembers of a forward must not keep the activations of a training step alive."""
    import gc
    import weakref

    trainable = edits.add("layers.1.mid", V).trainable()
    batch = llama.encode(prompts)
    with llama.edited(trainable) as receipt:
        logits = logits_of(llama, batch)
        graph = weakref.ref(logits)
        loss_of(logits).backward()
        del logits
        gc.collect()
        assert graph() is None
    assert receipt.changed == int(batch.mask.sum())
