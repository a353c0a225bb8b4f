"""Adapter edits in use: the numbers are those of changed weights, and the weights are not changed."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import optrode as op
from optrode import edits
from optrode.engine.hooks import ACTIVE, HOOKS
from optrode.errors import EditDidNothing, NotFinite, NotSupported, UnknownSite, WrongModel, WrongShape

Q, DOWN = "model.layers.1.self_attn.q_proj", "model.layers.2.mlp.down_proj"
RANDOM = torch.Generator().manual_seed(7)


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=RANDOM, dtype=torch.float64) * 0.3


CHANGES = {
    Q: (normal(32, 2), normal(2, 32)),
    DOWN: normal(32, 48),
    "model.layers.0.mlp.up_proj": normal(48),
    "model.embed_tokens": (normal(32, 3), normal(3, 375)),
    "lm_head": (normal(375, 1), normal(1, 32)),
}


def dense(change) -> torch.Tensor:
    return change[0] @ change[1] if isinstance(change, tuple) else change


def changed_copy(model: op.Model, changes: dict, strength: float = 1.0) -> nn.Module:
    """A copy of the network whose weights really are others."""
    module = copy.deepcopy(model.module)
    with torch.no_grad():
        for path, change in changes.items():
            part, delta = module.get_submodule(path), strength * dense(change)
            if delta.dim() == 1:
                part.bias = nn.Parameter(delta if part.bias is None else part.bias + delta)
            elif isinstance(part, nn.Linear):
                part.weight += delta
            elif isinstance(part, nn.Embedding) or type(part).__name__ == "Conv1D":
                part.weight += delta.T
    return module


def run(module: nn.Module, batch) -> torch.Tensor:
    return module(
        input_ids=batch.ids, attention_mask=batch.mask.long(), position_ids=batch.position_ids, use_cache=False
    ).logits


@pytest.fixture
def double(make_model) -> op.Model:
    model = make_model("llama", torch.float64)
    model.module.tie_weights()
    return model


@pytest.mark.parametrize("strength", [1.0, -0.5, 2.0])
@pytest.mark.parametrize("paths", [[Q], [DOWN], ["model.layers.0.mlp.up_proj"], ["model.embed_tokens"], ["lm_head"],
                                   list(CHANGES)])  # fmt: skip
def test_outputs_are_those_of_changed_weights(double, prompts, paths, strength):
    batch = double.encode(prompts)
    changes = {path: CHANGES[path] for path in paths}
    with torch.no_grad():
        plain, wanted = run(double.module, batch), run(changed_copy(double, changes, strength), batch)
        before = {name: value.clone() for name, value in double.module.state_dict().items()}
        parts = dict(double.module.named_modules())
        with double.edited(edits.weights(changes) * strength) as receipt:
            assert torch.allclose(run(double.module, batch), wanted, atol=1e-10)
        assert not torch.allclose(plain, wanted, atol=1e-3)
        assert torch.equal(run(double.module, batch), plain), "bit-equal afterwards"
    assert dict(double.module.named_modules()) == parts and len(HOOKS) == 0 and ACTIVE.get() == ()
    assert all(torch.equal(value, before[name]) for name, value in double.module.state_dict().items())
    assert list(receipt.sites) == [f"module:{path}" for path in paths] and receipt.calls == len(paths)
    for path in paths:
        site = receipt.sites[f"module:{path}"]
        weight = double.module.get_submodule(path).weight
        size = abs(strength) * float(dense(CHANGES[path]).norm() / weight.detach().norm())
        assert site.weight_change == pytest.approx(size) and site.relative_change > 0


def test_conv1d_weights_that_stand_on_their_side(make_model, prompts):
    model = make_model("gpt2", torch.float64)
    batch = model.encode(prompts)
    changes = {"transformer.h.1.attn.c_attn": (normal(96, 2), normal(2, 32)), "transformer.h.0.mlp.c_proj": normal(32)}
    with torch.no_grad():
        wanted = run(changed_copy(model, changes), batch)
        with model.edited(edits.weights(changes)):
            assert torch.allclose(run(model.module, batch), wanted, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_arithmetic_is_done_in_float32_and_rounded_once(make_model, dtype):
    model = make_model("llama", dtype)
    x = torch.randn(2, 3, 32).to(dtype)
    module = model.module.get_submodule(Q)
    up, down = (part.float() for part in CHANGES[Q])
    with torch.no_grad():
        wanted = (module(x).float() + 0.5 * (x.float() @ down.T @ up.T)).to(dtype)
        with model.edited(edits.weights({Q: (up, down)}) * 0.5):
            got = module(x)
        with torch.autocast("cpu", torch.bfloat16), model.edited(edits.weights({Q: (up, down)}) * 0.5):
            assert module(x).dtype == torch.bfloat16
    assert torch.equal(got, wanted) and got.dtype == dtype


def test_two_are_added_and_other_edits_see_what_they_leave(double, prompts):
    first = edits.weights({Q: CHANGES[Q]})
    second = edits.weights({Q: (normal(32, 1), normal(1, 32)), DOWN: CHANGES[DOWN]})
    batch, site = double.encode(prompts), "layers.1.attn.q"
    v = normal(8)
    with torch.no_grad():
        with double.edited(first + second * 0.5) as together:
            sums = run(double.module, batch)
        with double.edited(first), double.edited(second * 0.5):
            assert torch.allclose(run(double.module, batch), sums, atol=1e-12)
        assert len(together.sites) == 2
        plain = double.read(batch, site)[site]
        with double.edited(first):
            moved = double.read(batch, site)[site]
        assert not torch.allclose(plain, moved, atol=1e-3)
        doubled = edits.scale(site, 2.0) >> edits.add(site, v)
        with double.edited(first, doubled), double.recording(site) as rec:
            run(double.module, batch)
        assert torch.allclose(rec[site][batch.mask], (2 * moved + v)[batch.mask], atol=1e-10)
        with double.edited(edits.scale(site, 2.0), first), double.recording(site) as rec:
            run(double.module, batch)
        assert torch.allclose(rec[site][batch.mask], 2 * moved[batch.mask], atol=1e-10), "in whatever order"


def test_another_thread_sees_the_network_as_it_is(double, prompts):
    batch, found = double.encode(prompts), {}
    with torch.no_grad():
        plain = run(double.module, batch)

        def other():
            with torch.no_grad():
                found["plain"] = run(double.module, batch)
                with double.edited(edits.weights({DOWN: CHANGES[DOWN]})):
                    found["other"] = run(double.module, batch)

        with double.edited(edits.weights({Q: CHANGES[Q]})):
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
            ours = run(double.module, batch)
        assert torch.equal(found["plain"], plain)
        assert torch.allclose(found["other"], run(changed_copy(double, {DOWN: CHANGES[DOWN]}), batch), atol=1e-10)
        assert torch.allclose(ours, run(changed_copy(double, {Q: CHANGES[Q]}), batch), atol=1e-10)


def test_reading_resuming_and_writing(double, prompts):
    changes = {Q: CHANGES[Q], DOWN: CHANGES[DOWN]}
    other = op.load(changed_copy(double, changes), tokenizer=double.tokenizer)
    from optrode.engine.reading.read import residuals

    batch = double.encode(prompts)
    cached = residuals(double, batch, range(4))
    with double.edited(edits.weights(changes)) as receipt:
        assert double.generate(prompts, max_new_tokens=5) == other.generate(prompts, max_new_tokens=5)
        for inputs in (batch, cached):
            acts = double.read(inputs, "layers.2.out", positions="last_prompt")
            wanted = other.read(batch, "layers.2.out", positions="last_prompt")["layers.2.out"]
            assert torch.allclose(acts["layers.2.out"], wanted, atol=1e-10)
        assert acts.layers_skipped <= 1, "no block at or after the first change is taken from the cache"
    assert receipt.sites[f"module:{Q}"].decode_calls > 0


def test_names_by_site_and_around_the_head(double, llama, prompts):
    by_site = edits.weights({"layers.1.attn.q": CHANGES[Q], "module:lm_head": CHANGES["lm_head"]})
    with double.edited(by_site) as receipt:
        double.read(prompts, "logits")
    assert list(receipt.sites) == [f"module:{Q}", "module:lm_head"]
    base = op.load(copy.deepcopy(llama.module.model), tokenizer=llama.tokenizer)
    with base.edited(edits.weights({Q: CHANGES[Q]})) as receipt:
        base.read(prompts, "layers.2.out")
    assert list(receipt.sites) == ["module:layers.1.self_attn.q_proj"]


def test_what_is_wrong_is_refused_before_anything_runs(double, gpt2):
    wrong = {
        "model.layers.9.mlp.down_proj": (normal(32, 48), UnknownSite, "did you mean model.layers"),
        "model.layers.1.mlp": (normal(32, 32), NotSupported, "does not multiply with one matrix"),
        "layers.1.mid": (normal(32, 32), NotSupported, "not the whole output"),
        Q: (normal(32, 31), WrongShape, r"is \[32, 31\], but the module's is \[32, 32\]"),
        DOWN: ((normal(32, 2), normal(2, 47)), WrongShape, r"\[32, 47\].*\[32, 48\]"),
        "lm_head": (normal(32), WrongShape, r"\[32\].*\[375\]"),
    }
    for path, (change, error, text) in wrong.items():
        with pytest.raises(error, match=text), double.edited(edits.weights({path: change})):
            pass
    known = edits.weights({Q: normal(32, 32)}).with_provenance(edits.Provenance({"name": "x", **gpt2.fingerprint}))
    with pytest.raises(WrongModel, match="fitted on x"), double.edited(known):
        pass
    assert len(HOOKS) == 0


def test_an_adapter_cannot_silently_do_nothing(double, prompts):
    with pytest.raises(EditDidNothing, match="no forward"), double.edited(edits.weights({Q: CHANGES[Q]})):
        pass
    head = edits.weights({"lm_head": CHANGES["lm_head"]})
    with pytest.raises(EditDidNothing, match="lm_head did not run"), double.edited(head):
        double.read(prompts, "layers.0.out")
    with double.edited(edits.weights(CHANGES)) as receipt:
        double.read(prompts, "layers.2.out")
    assert receipt.notes == ["1 of 5 modules of the adapter never ran, such as module:lm_head"]
    with double.edited(edits.weights(CHANGES) * 0) as receipt:
        double.read(prompts, "layers.2.out")
        assert len(HOOKS) == 0
    assert receipt.notes == ["strength 0: nothing was installed"]
    with pytest.raises(NotFinite, match="q_proj"), double.edited(edits.weights({Q: CHANGES[Q]}) * 1e308):
        double.read(prompts, "layers.1.attn.out")


# Training ------------------------------------------------------------------------------------------------------------


def test_lora_begins_as_nothing_and_trains_as_by_hand(double, prompts):
    batch = double.encode(prompts)
    double.module.requires_grad_(False)
    edit = edits.lora(double, 2, ["q_proj", "model.layers.2.mlp.*"], alpha=4)
    assert len(edit.modules) == 6 and {delta.scale for delta in edit.deltas} == {2.0}
    edit = edit.with_tensors({name: value.double() for name, value in edit.tensors().items()})
    trainable = edit.trainable()
    assert "model.layers.0.self_attn.q_proj.up" in dict(trainable.named_parameters())
    with torch.no_grad(), double.edited(trainable):
        during = run(double.module, batch)
    assert torch.allclose(during, run(double.module, batch), atol=0)

    def loss_of(logits):
        return logits[:, -1].logsumexp(-1).mean() - logits[:, -1, 77].mean()

    own = {name: nn.Parameter(value.clone()) for name, value in edit.tensors().items()}

    def by_hand():
        weights = {
            f"{path}.weight": double.module.get_submodule(path).weight + 2.0 * own[f"{path}.up"] @ own[f"{path}.down"]
            for path in edit.modules
        }
        inputs = {"input_ids": batch.ids, "attention_mask": batch.mask.long(), "position_ids": batch.position_ids}
        return torch.func.functional_call(double.module, weights, (), {**inputs, "use_cache": False}).logits

    ours = torch.optim.Adam(trainable.parameters(), lr=0.02)
    theirs = torch.optim.Adam(own.values(), lr=0.02)
    losses = []
    for _ in range(4):
        theirs.zero_grad()
        loss_of(by_hand()).backward()
        theirs.step()
        with double.edited(trainable):
            loss = loss_of(run(double.module, batch))
            ours.zero_grad()
            loss.backward()
        ours.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1
    for name, value in trainable.named_parameters():
        assert torch.allclose(value, own[name], atol=1e-8), name
    assert all(p.grad is None for p in double.module.parameters())
    frozen = trainable.frozen(steps=4)
    with double.edited(frozen), torch.no_grad():
        after = run(double.module, batch)
    assert torch.allclose(after, by_hand(), atol=1e-7)
    assert frozen.provenance.fingerprint["weights"] == double.fingerprint["weights"]


@pytest.mark.parametrize("reentrant", [False, True])
def test_lora_under_gradient_checkpointing(double, prompts, reentrant):
    batch = double.encode(prompts)
    double.module.requires_grad_(False).train()
    edit = edits.lora(double, 2, "v_proj")
    trainable = edit.with_tensors({k: torch.randn_like(v) for k, v in edit.tensors().items()}).trainable()

    def step():
        trainable.zero_grad()
        with double.edited(trainable) as receipt:
            loss = F.cross_entropy(run(double.module, batch)[:, -1], torch.tensor([3, 4, 5]))
        loss.backward()
        return [p.grad.clone() for p in trainable.parameters()], str(receipt)

    wanted, plain = step()
    double.module.activation_checkpointing_enable({"use_reentrant": reentrant})
    got, receipt = step()
    assert receipt == plain and len(HOOKS) == 0
    for one, two in zip(got, wanted, strict=True):
        assert torch.allclose(one, two, rtol=1e-5, atol=1e-8)


def test_targets_that_match_nothing(double):
    with pytest.raises(UnknownSite, match="did you mean q_proj"):
        edits.lora(double, 2, ["q_porj"])
