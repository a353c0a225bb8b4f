"""Recording in the user's own forward: values and gradients are those of a hand-written hook."""

from __future__ import annotations

import pytest
import torch

import optrode as op
from optrode import edits
from optrode.engine.hooks import HOOKS
from optrode.errors import BadInput, NotSupported, UnknownSite

SITES = ["layers.0.out", "layers.1.attn.pattern", "layers.1.mid", "layers.1.mlp.hidden", "layers.2.attn.q", "logits"]
V = torch.randn(32, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def run(model: op.Model, batch) -> torch.Tensor:
    return model.module(
        input_ids=batch.ids, attention_mask=batch.mask.long(), position_ids=batch.position_ids, use_cache=False
    ).logits


def gradients(model: op.Model) -> list[torch.Tensor]:
    found = [p.grad.clone() for p in model.module.parameters() if p.grad is not None]
    model.module.zero_grad()
    return found


def sparsity(h: torch.Tensor) -> torch.Tensor:
    return h.abs().mean()


def kurtosis(h: torch.Tensor) -> torch.Tensor:
    centred = h - h.mean(-1, keepdim=True)
    return (centred.pow(4).mean(-1) / centred.pow(2).mean(-1).square()).mean()


@pytest.fixture
def double(make_model) -> op.Model:
    return make_model("llama", torch.float64)


def test_values_are_those_of_a_read_and_nothing_changes(double, prompts):
    batch = double.encode(prompts)
    wanted, plain = double.read(batch, SITES), run(double, batch)
    with double.recording(SITES) as rec:
        assert torch.equal(run(double, batch), plain)
    assert list(rec) == list(wanted) and rec.forwards == 1 and rec.axes == wanted.axes
    for site in wanted:
        keep = batch.mask if site != "layers.1.attn.pattern" else slice(None)
        assert torch.allclose(rec[site][keep], wanted[site][keep], atol=1e-12) and rec[site].requires_grad
    assert torch.equal(rec.batch.mask, batch.mask) and len(HOOKS) == 0


@pytest.mark.parametrize("penalty", [sparsity, kurtosis, torch.linalg.vector_norm])
@pytest.mark.parametrize("site", ["layers.1.mlp.out", "layers.0.out"])
def test_a_penalty_has_the_gradients_of_a_hand_written_one(double, prompts, block, penalty, site):
    batch, kept = double.encode(prompts), {}
    module = block(double, 1).mlp if "mlp" in site else block(double, 0)
    handle = module.register_forward_hook(lambda module, args, output: kept.update(h=output))
    loss = run(double, batch).logsumexp(-1).mean() + 0.1 * penalty(kept["h"][batch.mask])
    handle.remove()
    loss.backward()
    wanted = gradients(double)
    with double.recording(site) as rec:
        again = run(double, batch).logsumexp(-1).mean() + 0.1 * penalty(rec.rows(site))
        again.backward()
    assert torch.equal(loss, again)
    for first, second in zip(gradients(double), wanted, strict=True):
        assert torch.allclose(first, second, atol=1e-12)


def test_positions_and_scores(double, prompts):
    from optrode.scores import LinearScore

    score = LinearScore("layers.1.out", V.float(), 0.5)
    batch = double.encode(prompts)
    acts = double.read(batch, score.sites, positions=score.positions, grad=True)
    score(acts).sum().backward()
    wanted = gradients(double)
    with double.recording(score.sites, positions=score.positions) as rec:
        run(double, batch)
        assert rec["layers.1.out"].shape == (3, 32) and rec.axes["layers.1.out"] == ("example", "feature")
        assert torch.allclose(score(rec), score(acts))
        score(rec).sum().backward()
    got = gradients(double)
    assert len(got) >= len(wanted) > 0
    for first, second in zip(got, wanted, strict=False):
        assert torch.allclose(first, second, atol=1e-12)


def test_every_forward_brings_its_own_and_what_was_taken_stays(double, prompts):
    site = "layers.1.out"
    with double.recording(site) as rec:
        with pytest.raises(NotSupported, match="no forward has run yet"):
            rec[site]
        run(double, double.encode(prompts[:1]))
        first = rec[site]
        run(double, double.encode(prompts[1:]))
        assert rec[site].shape[0] == 2 and first.shape[0] == 1 and rec.forwards == 2
        (first.square().sum() + rec[site].square().sum()).backward()
        double.read(prompts, "layers.0.out")
        with pytest.raises(NotSupported, match="did not run in the last forward"):
            rec[site]
    assert len(gradients(double)) > 5
    with pytest.raises(UnknownSite, match="was not read"):
        rec["layers.0.out"]


def test_it_sees_what_edits_leave_and_trains_them(double, prompts):
    site, batch = "layers.1.out", double.encode(prompts)
    double.module.requires_grad_(False)
    trainable = edits.add("layers.0.out", V).trainable()
    with double.edited(trainable), double.recording([site, "embed"]) as rec:
        run(double, batch)
        assert not rec["embed"].requires_grad, "nothing that is trained comes before it"
        assert list(rec.gradients(2 * rec[site].sum())) == [site]
        run(double, batch)
        kurtosis(rec.rows(site)).backward()
    # The norms of this network compute in float32, so a small step would be lost in rounding.
    direction = trainable.vector.grad
    with torch.no_grad():
        values = []
        for step in (2e-3, -2e-3):
            with double.edited(edits.add("layers.0.out", V + step * direction / direction.norm())):
                values.append(kurtosis(double.read(batch, site).rows(site)))
    assert (values[0] - values[1]) / 4e-3 == pytest.approx(float(direction.norm()), rel=1e-3)


def test_gradients_at_sites_of_a_trained_network(double, prompts):
    site, batch = "layers.1.out", double.encode(prompts)
    acts = double.read(batch, [site, "logits"], grad=True)
    wanted = acts.gradients(acts["logits"].logsumexp(-1).sum())[site]
    with double.recording(site) as rec:
        loss = run(double, batch).logsumexp(-1).sum()
        assert torch.allclose(rec.gradients(loss)[site], wanted, atol=1e-12)


@pytest.mark.parametrize("reentrant", [False, True])
def test_in_a_checkpointed_network(double, prompts, reentrant):
    site, batch = "layers.1.mlp.out", double.encode(prompts)

    def step():
        with double.recording(site) as rec:
            (run(double, batch).logsumexp(-1).mean() + kurtosis(rec.rows(site))).backward()
        return gradients(double), rec.forwards

    wanted = step()
    double.module.train()
    double.module.activation_checkpointing_enable({"use_reentrant": reentrant})
    if reentrant:
        with pytest.raises(NotSupported, match="use_reentrant=False"):
            step()
        assert len(HOOKS) == 0
        return
    got = step()
    for first, second in zip(got[0], wanted[0], strict=True):
        assert torch.allclose(first, second, atol=1e-12)
    assert got[1] == wanted[1] == 1


def test_without_gradients_there_is_no_graph(double, prompts):
    with double.recording("layers.*.out") as rec, torch.no_grad():
        run(double, double.encode(prompts))
    assert rec.stack("layers.*.out").shape[0] == 3 and not rec["layers.0.out"].requires_grad
    with pytest.raises(NotSupported, match="no graph"):
        rec.gradients(rec["layers.0.out"].sum())


def test_it_goes_along_when_text_is_written(double):
    with double.recording("layers.1.out") as rec:
        written = len(double.completions("The cat", max_new_tokens=3)[0].ids)
    assert rec.forwards == written and rec["layers.1.out"].shape == (1, 1 if written > 1 else rec.batch.width, 32)


def test_what_cannot_be_recorded_is_refused(double):
    with pytest.raises(UnknownSite), double.recording("layers.9.out"):
        pass
    with pytest.raises(BadInput), double.recording("layers.1.out", positions="nowhere"):
        pass
    assert len(HOOKS) == 0
