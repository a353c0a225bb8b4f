"""Property 9: experts as they are. Reading changes no bit, whatever runs them, and nothing is left behind."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch

import optrode as op
from optrode import edits
from optrode.engine.hooks import ACTIVE

INSIDE = ["layers.*.mlp.{router,weights,chosen}", "layers.*.mlp.experts.*"]


def state(model: op.Model) -> dict[str, Any]:
    """What a read or an edit of experts could have left in a module."""
    found: dict[str, Any] = {"config": str(model.config)}
    for path, module in model.module.named_modules():
        hooks = [list(module._forward_hooks.items()), list(module._forward_pre_hooks.items())]
        own = module.__dict__
        found[path] = [hooks, sorted(own), id(own.get("config")), own.get("forward")]
    return found


def logits(model: op.Model, batch: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.module(input_ids=batch.ids, attention_mask=batch.mask.long()).logits


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("way", ["eager", "batched_mm", "grouped_mm"])
def test_reading_changes_no_bit_in_any_way_of_running_them(make_mixture: Any, prompts: list[str], way: str, dtype: Any):
    for kind in ("mixtral", "qwen3_moe", "gpt_oss", "deepseek_v3"):
        model = make_mixture(kind, dtype)
        model.module.set_experts_implementation(way)
        batch = model.encode(prompts)
        before, plain = state(model), logits(model, batch)
        got = model.read(batch, [*INSIDE, "layers.2.out", "logits"])["logits"]
        # The head reads the last block's output: if no bit of it changed, nothing before did.
        with model.edited(edits.add("layers.1.mlp.experts.hidden", torch.zeros(24))):
            same = logits(model, batch)
        assert torch.equal(same, plain), kind
        assert torch.equal(logits(model, batch), plain) and state(model) == before, kind
        mask = batch.mask
        assert torch.equal(got[mask], model.read(batch, "logits")["logits"][mask]), kind
        assert model.module.config._experts_implementation == way


def test_an_exception_leaves_nothing_behind(mixture: op.Model, prompts: list[str]) -> None:
    before = state(mixture)

    def fails(h: torch.Tensor) -> torch.Tensor:
        raise KeyError("on purpose")

    for site in ("experts.hidden", "experts.out", "router", "weights"):
        with pytest.raises(KeyError), mixture.edited(edits.function(f"layers.1.mlp.{site}", fails)):
            mixture.read(prompts, "layers.1.out")
        assert state(mixture) == before and ACTIVE.get() == ()


def test_edits_that_end_in_another_order_leave_nothing_behind(mixture: op.Model, prompts: list[str]) -> None:
    before, plain = state(mixture), mixture.read(prompts, "layers.1.out")["layers.1.out"]
    first = mixture.edited(edits.scale("layers.1.mlp.experts.out", 2.0))
    second = mixture.edited(edits.scale("layers.1.mlp.experts.hidden", 2.0))
    first.__enter__()
    second.__enter__()
    assert not torch.equal(mixture.read(prompts, "layers.1.out")["layers.1.out"], plain)
    first.__exit__(None, None, None)
    mixture.read(prompts, "layers.1.mlp.experts.out")
    second.__exit__(None, None, None)
    assert state(mixture) == before
    assert torch.equal(mixture.read(prompts, "layers.1.out")["layers.1.out"], plain)


def test_other_threads_see_their_own_experts(mixture: op.Model, prompts: list[str]) -> None:
    batch = mixture.encode(prompts)
    plain, seen = logits(mixture, batch), []
    with mixture.edited(edits.zero_ablate("layers.*.mlp.experts.out")):
        thread = threading.Thread(target=lambda: seen.append(logits(mixture, batch)))
        thread.start()
        thread.join()
        assert not torch.equal(logits(mixture, batch), plain)
    assert torch.equal(seen[0], plain)


def test_the_equation_of_experts_is_measured(mixture: op.Model, prompts: list[str]) -> None:
    from optrode.engine.mapping.equations import measure

    checks = [check for check in measure(mixture, prompts) if "experts" in check.equation]
    with_experts = [address for address in mixture.table if address.endswith(".mlp.experts.out")]
    assert len(checks) == len(with_experts) >= 2
    assert all(check.holds and check.error < 1e-5 for check in checks)


def test_unchosen_pairs_cost_no_memory(mixture: op.Model, prompts: list[str]) -> None:
    acts = mixture.read(prompts, "layers.1.mlp.experts.out")
    assert acts["layers.1.mlp.experts.out"].shape == (*acts.batch.mask.shape, 2, 32)
