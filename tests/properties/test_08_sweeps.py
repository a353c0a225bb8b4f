"""Property 8, of sweeps: only what can differ is computed again, and it is what one forward for each patch gives."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import optrode as op
from optrode import edits
from optrode.metrics import LogitDifference

BASE, DONOR = "The cat sat on the mat and the", "The cat sat on the dog and the"
METRIC = LogitDifference(40, 50)


@pytest.fixture
def ran(model: op.Model, block) -> Iterator[list[tuple[int, int, int]]]:
    """Layer, rows and columns of every call of a block, noted by replacing the blocks' own forwards."""
    calls: list[tuple[int, int, int]] = []
    own = {layer: block(model, layer).forward for layer in range(3)}

    def noted(layer: int):
        def forward(*args, **kwargs):
            stream = args[0] if args else kwargs["hidden_states"]
            calls.append((layer, *stream.shape[:2]))
            return own[layer](*args, **kwargs)

        return forward

    for layer in range(3):
        block(model, layer).forward = noted(layer)
    yield calls
    for layer in range(3):
        del block(model, layer).forward


def sweep(model: op.Model, sites="layers.*.out", **options) -> op.Map:
    return op.sweep(model, BASE, DONOR, sites, metric=METRIC, template="raw", **options)


def test_rows_begin_at_their_own_block_and_column(model: op.Model, ran):
    base, donor = (model.encode(text, template="raw").ids[0] for text in (BASE, DONOR))
    width, first = len(base), int((base != donor).int().argmax())
    sweep(model)
    ran.clear()
    found = sweep(model)
    whole = [call for call in ran if call[2] == width]
    assert sorted(whole) == [(layer, 1, width) for layer in range(3) for _ in range(2)], "base and donor, once each"
    patched = [call for call in ran if call[2] < width]
    assert all(columns <= width - first for _, _, columns in patched), "columns before the first difference never run"
    assert {layer for layer, _, _ in patched} == {1, 2}, "a patched block does not run for its own patch"
    rows = {layer: sum(rows for own, rows, _ in patched if own == layer) for layer in (1, 2)}
    assert rows == {1: width - first, 2: 2 * (width - first)}, "one row for each patch that is under way"
    assert found.notes["forwards_worth"] == pytest.approx(sum(r * c for _, r, c in ran) / (3 * width), abs=0.01)


def test_inputs_that_are_equal_run_nothing_twice(model: op.Model, ran):
    found = op.sweep(model, BASE, BASE, metric=METRIC, template="raw")
    assert all(rows == 1 for _, rows, _ in ran) and len(ran) <= 9, "base, donor, and the first time the base once more"
    assert bool((found.values == found.base).all()) and found.notes["computed"] == 0


def test_equal_to_one_edited_forward_for_each_patch(model: op.Model):
    found = sweep(model, "layers.*.mid")
    donor = model.read(model.encode(DONOR, template="raw"), "layers.*.mid")
    batch = model.encode(BASE, template="raw")
    for layer in range(3):
        for position in range(batch.width):
            site = f"layers.{layer}.mid"
            with model.edited(edits.replace(site, donor[site][0, position], f"index:{position}")):
                logits = model.read(batch, "logits", positions="last_prompt")["logits"][0]
            assert found.values[layer, position] == pytest.approx(float(logits[40] - logits[50]), abs=2e-4)


@pytest.mark.slow
def test_the_real_model_by_hand(smollm2: op.Model):
    """Every fifth layer and every position, by torch hooks alone."""
    texts = [f"When Mary and John went to the store, {name} gave a drink to" for name in ("John", "Mary")]
    metric = LogitDifference(" Mary", " John")
    found = op.sweep(smollm2, *texts, metric=metric, template="raw")
    mary, john = (smollm2.tokenizer(text)["input_ids"][0] for text in (" Mary", " John"))
    network, blocks = smollm2.module, smollm2.module.model.layers
    base, donor = (smollm2.encode(text, template="raw").ids for text in texts)
    kept: list[torch.Tensor] = []
    handles = [block.register_forward_hook(lambda _, __, out: kept.append(out)) for block in blocks]
    with torch.no_grad():
        network(donor)
    for handle in handles:
        handle.remove()
    for layer in range(0, 30, 5):
        for position in range(9, 14):

            def patch(_, __, out, layer=layer, position=position):
                out[:, position] = kept[layer][:, position]
                return out

            handle = blocks[layer].register_forward_hook(patch)
            with torch.no_grad():
                logits = network(base).logits[0, -1]
            handle.remove()
            assert found.values[layer, position] == pytest.approx(float(logits[mary] - logits[john]), abs=5e-4)
    assert found.notes["skipped"] == 30 * 9 and found.notes["way"] == "columns"
