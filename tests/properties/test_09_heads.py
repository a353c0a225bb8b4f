"""Property 9, for heads: they are read and written as they are, key heads that several query heads share too."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import optrode as op
from optrode import edits

Q, K, V, PATTERN, HEADS = (f"layers.1.attn.{name}" for name in ("q_rotated", "k_rotated", "v", "pattern", "heads"))


def group_of(model: op.Model, key_head: int) -> list[int]:
    """The query heads that share a key head, by the network's own numbers."""
    query = model.config.num_attention_heads
    key = getattr(model.config, "num_key_value_heads", query)
    return [head for head in range(query) if head // (query // key) == key_head]


def moved_heads(model: op.Model, prompts: list[str], edit: op.Edit, layer: int = 1) -> tuple[set[int], set[int]]:
    """Query heads of which some bit changed, and those of which no token is as it was."""
    site = f"layers.{layer}.attn.heads"
    batch = model.encode(prompts)
    plain = model.read(batch, site)[site]
    with model.edited(edit):
        changed = (model.read(batch, site)[site] != plain).any(-1)[batch.mask]
    heads = range(changed.shape[-1])
    return {head for head in heads if changed[:, head].any()}, {head for head in heads if changed[:, head].all()}


def test_every_query_head_is_its_pattern_times_the_values_of_its_key_head(model: op.Model, prompts: list[str]):
    acts = model.read(prompts, [V, PATTERN, HEADS])
    values = acts[V]
    for key_head in range(values.shape[2]):
        for head in group_of(model, key_head):
            wanted = torch.einsum("rqk,rkf->rqf", acts[PATTERN][:, :, head], values[:, :, key_head])
            assert torch.allclose(acts[HEADS][:, :, head][acts.batch.mask], wanted[acts.batch.mask], atol=1e-5)


def test_the_heads_make_up_what_attention_adds(model: op.Model, prompts: list[str], block):
    acts = model.read(prompts, [HEADS, "layers.1.attn.out"])
    own = block(model, 1)
    project = own.attn.c_proj if hasattr(own, "attn") else own.self_attn.o_proj
    weight = project.weight.T if hasattr(own, "attn") else project.weight
    size = acts[HEADS].shape[-1]
    parts = [
        F.linear(acts[HEADS][:, :, head], weight[:, head * size : (head + 1) * size])
        for head in range(acts[HEADS].shape[2])
    ]
    total: Tensor = sum(parts) if project.bias is None else sum(parts) + project.bias
    assert torch.allclose(total, acts["layers.1.attn.out"], atol=1e-4)


@pytest.mark.parametrize("head", [0, 2])
@pytest.mark.parametrize("site", ["q_rotated", "scores", "pattern", "heads"])
def test_a_query_head_is_written_alone(site: str, head: int, model: op.Model, prompts: list[str]):
    edit = edits.scale(f"layers.1.attn.{site}", 0.5, heads=(head,))
    changed, wholly = moved_heads(model, prompts, edit)
    assert changed == {head}
    # The first token sees itself only, so that scores of any size give the same pattern.
    assert wholly == ({head} if site in ("pattern", "heads") else set())


@pytest.mark.parametrize("key_head", [0, 1])
@pytest.mark.parametrize("site", ["k", "k_rotated", "v"])
def test_a_key_head_is_written_for_all_query_heads_that_share_it(site, key_head, model: op.Model, prompts: list[str]):
    edit = edits.scale(f"layers.1.attn.{site}", -1.0, heads=(key_head,))
    changed, _ = moved_heads(model, prompts, edit)
    assert changed == set(group_of(model, key_head))


def test_smollm2_has_three_query_heads_for_every_key_head(smollm2: op.Model):
    prompts = ["The capital of France is", "Iron rusts."]
    acts = smollm2.read(prompts, ["layers.14.attn.{q_rotated,k_rotated,pattern}"])
    heads = {site.rsplit(".", 1)[1]: value.shape[2] for site, value in acts.items()}
    assert heads == {"q_rotated": 9, "k_rotated": 3, "pattern": 9}
    keys = edits.scale("layers.14.attn.k_rotated", -1.0, heads=(1,))
    assert moved_heads(smollm2, prompts, keys, 14)[0] == {3, 4, 5}
    assert moved_heads(smollm2, prompts, edits.zero_ablate("layers.14.attn.pattern", heads=(7,)), 14)[0] == {7}
