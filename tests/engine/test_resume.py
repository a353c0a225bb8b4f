from __future__ import annotations

import pytest
import torch

import optrode as op
from optrode import edits
from optrode.engine import resume
from optrode.engine.reading.read import residuals
from optrode.engine.resume import Residuals

V = torch.randn(32, generator=torch.Generator().manual_seed(5))
SITES = ["layers.0.out", "layers.1.attn.heads", "layers.2.in", "layers.2.out", "final", "logits"]


def close(got, wanted, mask=None) -> bool:
    if mask is not None:
        got, wanted = got[mask], wanted[mask]
    return torch.allclose(got, wanted, atol=2e-5, rtol=1e-5)


def test_what_is_kept_is_the_input_of_the_blocks(model: op.Model, prompts: list[str]):
    batch = model.encode(prompts)
    kept = residuals(model, batch, [-1, 0, 1, 2, 3])
    assert sorted(kept.at) == [1, 2] and len(kept.keys_values) == 3
    for layer, value in kept.at.items():
        assert torch.equal(value, model.read(batch, f"layers.{layer}.in")[f"layers.{layer}.in"])
    assert [kept.start(layer) for layer in range(4)] == [0, 1, 2, 2]


EDITS = {
    "nothing": None,
    "in": edits.add("layers.1.in", V),
    "mid": edits.add("layers.1.mid", V),
    "out": edits.add("layers.1.out", V),
    "heads": edits.zero_ablate("layers.2.attn.heads", heads=(1,)),
    "two": edits.add("layers.2.out", V) + edits.scale("layers.0.mlp.out", 0.5),
    "prompt end": edits.add("layers.1.out", V, "last_prompt"),
    "after": edits.add("layers.0.mid", V, "after_instruction") >> edits.scale("layers.2.out", 3.0, "last_prompt"),
    "user": edits.add("layers.1.in", V, "user"),
}


@pytest.mark.parametrize("positions", [None, "last_prompt", "after_instruction"])
@pytest.mark.parametrize("name", EDITS)
def test_resumed_equals_full(name: str, positions, model: op.Model, prompts: list[str]):
    batch = model.encode(prompts)
    kept = residuals(model, batch, [1, 2])
    for sites in (SITES, ["logits"], ["layers.2.out"], ["layers.0.out"]):
        if EDITS[name] is None:
            full, short = (model.read(inputs, sites, positions=positions) for inputs in (batch, kept))
        else:
            # The stop before the edit of the last sites would rightly be an error.
            reached = sites if sites != ["layers.0.out"] else ["layers.0.out", "layers.2.out"]
            with model.edited(EDITS[name]) as first:
                full = model.read(batch, reached, positions=positions)
            with model.edited(EDITS[name]) as second:
                short = model.read(kept, reached, positions=positions)
            for site in first.sites:
                assert first.sites[site].selected <= int(batch.mask.sum())
                assert second.sites[site].prefill_calls == 1 and second.sites[site].decode_calls == 0
                if positions is not None and str(EDITS[name].leaves()[0].positions) != "all":
                    assert second.sites[site].selected == first.sites[site].selected
        for site in full:
            mask = batch.mask if positions is None else None
            assert close(short[site], full[site], mask), (name, site)


def test_fewer_blocks_and_fewer_columns_really_run(model: op.Model, prompts: list[str], block):
    batch = model.encode(prompts)
    kept = residuals(model, batch, [1, 2])
    seen: list[tuple[int, int]] = []
    handles = [
        block(model, layer).mlp.register_forward_pre_hook(lambda _, args, n=layer: seen.append((n, args[0].shape[1])))
        for layer in range(3)
    ]
    try:
        with model.edited(edits.add("layers.1.out", V, "last_prompt")) as receipt:
            model.read(kept, "logits", positions="last_prompt")
        assert seen == [(2, 1)], "block 1 answers from what is kept, and one column is enough"
        assert receipt.layers_run == 1 and receipt.layers_skipped == 2
        seen.clear()
        model.read(kept, "layers.2.attn.out")
        assert [layer for layer, _ in seen] == [] and model.read(kept, "layers.2.out").layers_run == 1
        seen.clear()
        model.read(Residuals(batch, {}), "layers.2.out")
        assert [layer for layer, _ in seen] == [0, 1, 2]
    finally:
        for handle in handles:
            handle.remove()
    assert not any("forward" in module.__dict__ for module in model.module.modules())


def test_what_is_kept_is_unedited_even_inside_an_edit(llama: op.Model, prompts: list[str]):
    batch = llama.encode(prompts)
    outside = residuals(llama, batch, [1, 2])
    edit = edits.add("layers.1.in", 2 * V)
    with llama.edited(edit):
        inside = residuals(llama, batch, [1, 2])
        full = llama.read(batch, "logits", positions="last_prompt")["logits"]
        again = llama.read(inside, "logits", positions="last_prompt")["logits"]
    assert all(torch.equal(inside.at[layer], outside.at[layer]) for layer in (1, 2))
    assert close(again, full)


def test_reading_does_not_use_up_what_is_kept(llama: op.Model, prompts: list[str]):
    batch = llama.encode(prompts)
    kept = residuals(llama, batch, [1, 2])
    before = [value.clone() for value in (*kept.at.values(), *(t for pair in kept.keys_values for t in pair))]
    first = llama.read(kept, "logits", positions="last_prompt")["logits"]
    assert torch.equal(first, llama.read(kept, "logits", positions="last_prompt")["logits"])
    after = (*kept.at.values(), *(t for pair in kept.keys_values for t in pair))
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))


def test_a_network_that_cannot_be_resumed_is_run_in_full(make_model, prompts: list[str], block):
    """A block that carries something past the stream: measured once, and then nothing is resumed."""
    model = make_model("llama")
    past = {}

    def leave(_, args):
        past["sum"] = args[0].sum(-1, keepdim=True)

    block(model, 0).mlp.register_forward_pre_hook(leave)
    block(model, 2).mlp.register_forward_hook(lambda _, __, out: out + past.pop("sum", 100.0))
    kept = residuals(model, model.encode(prompts), [1, 2])
    assert kept.at == {}
    batch = model.encode(prompts)
    full = model.read(batch, "logits")["logits"]
    assert close(model.read(kept, "logits")["logits"], full, batch.mask)


def test_what_was_not_measured_is_measured_later(make_model):
    model = make_model("gpt2")
    batch = model.encode("The cat sat")
    assert residuals(model, batch, []).at == {}, "nothing was asked for, so nothing was measured"
    assert sorted(residuals(model, batch, [1]).at) == [1]
    other = make_model("gpt2")
    one = other.encode("a", template="raw")
    assert one.width == 1 and residuals(other, one, [1]).keys_values == []
    assert len(residuals(other, batch, [1]).keys_values) == 3


def test_a_probe_that_disagrees_turns_resuming_off(make_model, monkeypatch: pytest.MonkeyPatch, prompts: list[str]):
    model = make_model("llama")
    monkeypatch.setattr(resume, "_same", lambda *compared: False)
    kept = residuals(model, model.encode(prompts), [1, 2])
    assert kept.at == {} and kept.keys_values == []


def test_the_probe_compares(llama: op.Model):
    one = torch.randn(8)
    assert resume._same(llama, one, one + 1e-6)
    assert not resume._same(llama, one, one + 1e-2) and not resume._same(llama, one, None)
    assert not resume._same(llama, one, one * float("nan"))
