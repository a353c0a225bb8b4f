"""Property 8: only the layers that are needed run, and the receipt says how many were skipped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
import torch

import optrode as op
from optrode import edits
from optrode.engine.reading.read import residuals
from optrode.engine.transformers_names import cache_of


@pytest.fixture
def ran(model: op.Model, block) -> Iterator[Counter]:
    """How often each part was called, counted by replacing the parts' own forwards (hooks could be stepped over)."""
    calls: Counter = Counter()
    network = model.module
    norm = network.transformer.ln_f if hasattr(network, "transformer") else network.model.norm
    parts = {f"block {layer}": block(model, layer) for layer in range(3)} | {"norm": norm, "head": network.lm_head}
    own = {name: module.forward for name, module in parts.items()}

    def counted(name: str):
        def forward(*args, **kwargs):
            calls[name] += 1
            if cache_of(args, kwargs) is not None:
                calls["cache"] += 1
            return own[name](*args, **kwargs)

        return forward

    for name, module in parts.items():
        module.forward = counted(name)
    yield calls
    for module in parts.values():
        del module.forward


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_reading_a_blocks_output_runs_the_blocks_up_to_it(layer: int, model: op.Model, ran: Counter):
    acts = model.read(["The cat", "a"], f"layers.{layer}.out")
    assert ran == {f"block {index}": 1 for index in range(layer + 1)}, "no later block, no norm, no head, no cache"
    assert (acts.layers_run, acts.layers_skipped) == (layer + 1, 2 - layer)


@pytest.mark.parametrize(
    ("sites", "blocks", "more"),
    [
        ("embed", 0, ()), ("layers.0.in", 0, ()), ("layers.2.in", 2, ()), ("layers.1.attn.in", 2, ()),
        ("layers.1.attn.pattern", 2, ()), (["layers.0.attn.scores", "layers.0.out"], 1, ()),
        (["layers.0.out", "layers.1.attn.heads"], 2, ()), ("final", 3, ("norm",)), ("logits", 3, ("norm", "head")),
        (["logits", "embed"], 3, ("norm", "head")),
    ],
)  # fmt: skip
def test_any_site_runs_what_it_needs(sites, blocks: int, more, model: op.Model, ran: Counter):
    acts = model.read("The cat", sites)
    begun = {f"block {index}" for index in range(blocks)}
    assert set(ran) == begun | set(more) and all(count == 1 for count in ran.values())
    assert (acts.layers_run, acts.layers_skipped) == (blocks, 3 - blocks)


def test_a_raw_site_inside_a_block_stops_there_and_one_outside_does_not(model: op.Model, ran: Counter):
    path = next(name for name, module in model.module.named_modules() if module is model.blocks[0])
    model.read("The cat", f"module:{path}")
    assert set(ran) == {"block 0"}
    ran.clear()
    model.read("The cat", "module:lm_head")
    assert ran["head"] == 1 and ran["block 2"] == 1 and ran["cache"] == 0


def test_the_receipt_of_an_edit_says_what_the_read_skipped(model: op.Model, ran: Counter):
    with model.edited(edits.scale("layers.0.out", 2.0)) as receipt:
        model.read("The cat", "layers.1.out")
        assert (receipt.layers_run, receipt.layers_skipped) == (2, 1)
        model.read("The cat", "logits")
    assert (receipt.layers_run, receipt.layers_skipped) == (3, 0)
    assert ran == {"block 0": 2, "block 1": 2, "block 2": 1, "norm": 1, "head": 1}


def test_a_resume_skips_the_blocks_below(model: op.Model, ran: Counter):
    batch = model.encode(["The cat", "a"])
    kept = residuals(model, batch, [1, 2])
    ran.clear()
    with model.edited(edits.add("layers.1.mlp.out", torch.ones(32))) as receipt:
        acts = model.read(kept, "layers.2.out")
    assert ran == {"block 1": 1, "block 2": 1}
    assert (receipt.layers_run, receipt.layers_skipped) == (acts.layers_run, acts.layers_skipped) == (2, 1)
    ran.clear()
    assert model.read(kept, "layers.2.mid").layers_skipped == 2 and ran == {"block 2": 1}
    ran.clear()
    assert model.read(kept, "layers.0.out").layers_skipped == 3 and not ran, "it is what block 1 read"
    assert model.read(kept, "layers.0.mlp.out").layers_skipped == 2, "it is not kept, so it must run"
    assert ran == {"block 0": 1}


def test_many_forwards_stop_early_each(model: op.Model, ran: Counter):
    model.read(["The cat", "a", "Answer in one word."], "layers.0.out", tokens_per_forward=1)
    assert ran == {"block 0": 3}


def test_writing_uses_its_cache_and_the_whole_network(model: op.Model, ran: Counter):
    with model.edited(edits.scale("layers.0.out", 2.0)) as receipt:
        model.generate("The cat", max_new_tokens=3, min_new_tokens=3)
    assert ran["block 2"] == ran["head"] == 3 and ran["cache"] == 9 and receipt.layers_skipped == 0
