"""Directional ablation against blocks whose outputs are projected by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from optrode.errors import BadInput
from optrode.steering.caa import CAA
from optrode.steering.directional_ablation import DirectionalAblation

PROMPTS = ["How was the sea?", "Where does the Eiffel Tower stand, and what is the weather there?"]


def projected(model, twin, prompt, vector, strength):
    """Logits of one row with v taken out of every block's output by hooks of plain torch."""
    plain, unit = twin(model), vector / vector.norm()

    def after(_, args, output):
        h = output[0] if isinstance(output, tuple) else output
        h = h - strength * (h @ unit)[..., None] * unit
        return (h, *output[1:]) if isinstance(output, tuple) else h

    hooks = [block.register_forward_hook(after) for block in plain.blocks]
    try:
        with torch.no_grad():
            ids = torch.tensor([plain.answered(prompt)])
            return plain.module(input_ids=ids, use_cache=False).logits[0]
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize("strength", [1.0, 0.25])
def test_logits_equal_blocks_projected_by_hand(model, twin, library_logits, pairs, strength):
    edit = DirectionalAblation(depth=1 / 3).fit(model, pairs)
    vector = CAA(site="layers.1.out", form="replies").fit(model, pairs).operator.vector
    for got, prompt in zip(library_logits(model, PROMPTS, edit * strength), PROMPTS, strict=True):
        torch.testing.assert_close(got, projected(model, twin, prompt, vector, strength), atol=1e-4, rtol=1e-4)


def test_nothing_is_left_along_the_direction_at_any_layer(llama, pairs):
    edit = DirectionalAblation().fit(llama, pairs)
    vector = edit.leaves()[0].operator.basis[0]
    with llama.edited(edit) as receipt:
        acts = llama.read(PROMPTS, "layers.*.out")
    assert len(receipt.sites) == llama.layers
    assert max(float((value @ vector).abs().max()) for value in acts.values()) < 1e-5


def test_facing_for_the_behaviour_doubles_the_component(llama, pairs):
    away, towards = (DirectionalAblation().facing(sign).fit(llama, pairs) for sign in (-1, 1))
    site, vector = "layers.0.out", away.leaves()[0].operator.basis[0]
    base = llama.read(PROMPTS, site)[site] @ vector
    with llama.edited(towards):
        doubled = llama.read(PROMPTS, site)[site] @ vector
    torch.testing.assert_close(doubled, 2 * base, atol=1e-4, rtol=1e-4)


def test_one_edit_for_each_layer_it_may_be_read_at(llama, small):
    found = DirectionalAblation().fit_layers(llama, small, [0, 2])
    basis = {layer: edit.leaves()[0].operator.basis for layer, edit in found.items()}
    assert list(found) == [0, 2] and not torch.allclose(basis[0], basis[2])
    assert all(edit.leaves()[0].provenance.recipe["read_at"] == f"layers.{layer}.out" for layer, edit in found.items())


def test_two_equal_sides_are_refused(llama, small):
    same = tuple(replace(pair, negative=pair.positive) for pair in small.fit)
    with pytest.raises(BadInput, match="the fitted vector is zero"):
        DirectionalAblation().fit(llama, same)
