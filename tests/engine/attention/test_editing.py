"""What is written inside attention is what a second attention makes of it."""

from __future__ import annotations

import pytest
import torch
from second_attention import HEADS, KEYS, PATTERN, SCORES, by_hand, columns, made, same
from torch import Tensor

import optrode as op
from optrode import edits
from optrode.engine.attention import probabilities
from optrode.engine.reading.read import residuals

CASES = {
    "half a pattern": (
        edits.scale(PATTERN, 0.5, "user", heads=(1, 2)),
        ("pattern", lambda h: 0.5 * h, "user", "all", (1, 2)),
    ),
    "an even pattern": (edits.replace(PATTERN, 0.1), ("pattern", lambda h: 0.1 + 0 * h, "all", "all", (0, 1, 2, 3))),
    "no weight for the user": (
        edits.zero_ablate(PATTERN, "last_prompt", keys="user", heads=(0,)),
        ("pattern", lambda h: 0 * h, "last_prompt", "user", (0,)),
    ),
    "more score for the user": (
        edits.add(SCORES, 3.0, keys="user"),
        ("scores", lambda h: h + 3.0, "all", "user", (0, 1, 2, 3)),
    ),
    "knockout": (
        edits.knockout(SCORES, "user", "last_prompt", heads=(1, 3)),
        ("scores", lambda h: h - torch.inf, "last_prompt", "user", (1, 3)),
    ),
    "twice the queries": (
        edits.scale("layers.1.attn.q_rotated", 2.0, "user", heads=(3,)),
        ("query", lambda h: 2 * h, "user", None, (3,)),
    ),
    "other keys": (edits.scale(KEYS, -1.0, "user", heads=(1,)), ("key", lambda h: -h, "user", None, (1,))),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen3", "gemma2"])
def test_what_is_written_is_what_a_second_attention_computes(name, case, make_model, tokenizer, prompts, forward):
    model = made(name, make_model, tokenizer)
    batch = model.encode(prompts)
    edit, (what, operation, positions, keys, heads) = CASES[case]
    rows = columns(batch, positions)[:, None, :, None]
    seen = columns(batch, keys)[:, None, None] if keys else torch.ones(()).bool()
    chosen = torch.tensor([head in heads for head in range(4)])[None, :, None, None]

    def change(layer: int, at: str, h: Tensor) -> Tensor:
        return torch.where(rows & seen & chosen[:, : h.shape[1]], operation(h), h) if (layer, at) == (1, what) else h

    plain = forward(model, batch).logits
    with by_hand(model, lambda layer, at, h: h):
        assert same(forward(model, batch).logits[batch.mask], plain[batch.mask]), "the second one is attention"
    with by_hand(model, change):
        wanted = forward(model, batch).logits
    with model.edited(edit) as receipt:
        got = model.read(batch, "logits")["logits"]
    # Some of these edits hold values in float32.
    assert same(got[batch.mask], wanted[batch.mask], 1e-6 if got.dtype == torch.float64 else None)
    assert not same(got[batch.mask], plain[batch.mask], 1e-4)
    assert receipt.changed > 0


@pytest.mark.parametrize("case", ["half a pattern", "knockout", "no weight for the user", "other keys"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
def test_an_edited_batch_is_each_row_edited_alone(name, case, make_model, tokenizer, prompts):
    model = made(name, make_model, tokenizer)
    with model.edited(CASES[case][0]):
        together = model.read(prompts, "logits")
        for row, prompt in enumerate(prompts):
            alone = model.read(prompt, "logits")["logits"][0]
            assert same(together["logits"][row][together.batch.mask[row]], alone), row


def test_only_the_chosen_queries_and_heads_change_a_bit(llama: op.Model, prompts: list[str]):
    plain = llama.read(prompts, HEADS)[HEADS]
    for edit in (
        edits.scale(PATTERN, 0.5, "last_prompt", heads=(2,)),
        edits.knockout(SCORES, "user", "last_prompt", heads=(2,)),
    ):
        with llama.edited(edit):
            got = llama.read(prompts, HEADS)[HEADS]
        changed = (got != plain).any(-1)
        assert changed[:, -1, 2].all()
        changed[:, -1, 2] = False
        assert not changed.any()


def test_a_knockout_gives_the_weight_to_the_others_and_zero_to_nobody(llama: op.Model, prompts: list[str]):
    acts = llama.read(prompts, PATTERN)
    plain = acts[PATTERN][:, -1, 1]
    user = columns(acts.batch, "user")
    with llama.edited(edits.knockout(SCORES, "user", "last_prompt", heads=(1,))) as receipt:
        knocked = llama.read(prompts, PATTERN)[PATTERN][:, -1, 1]
    assert receipt.sites[SCORES].selected == len(prompts) and receipt.relative_change > 0
    with llama.edited(edits.zero_ablate(PATTERN, "last_prompt", keys="user", heads=(1,))):
        zeroed = llama.read(prompts, PATTERN)[PATTERN][:, -1, 1]
    kept = plain * ~user
    assert torch.equal(zeroed, kept)
    assert torch.allclose(knocked, kept / kept.sum(-1, keepdim=True), atol=1e-6)


def test_who_may_look_at_nothing_gets_nothing(llama: op.Model, prompts: list[str]):
    with llama.edited(edits.knockout(SCORES, "all", "last_prompt", heads=(0,))):
        acts = llama.read(prompts, [PATTERN, HEADS, "logits"])
    assert not acts[PATTERN][:, -1, 0].any() and not acts[HEADS][:, -1, 0].any()
    assert bool(torch.isfinite(acts["logits"][acts.batch.mask]).all())


def test_no_edit_shows_a_token_padding_or_what_comes_later(llama: op.Model, prompts: list[str]):
    before = llama.read(prompts, SCORES)
    hidden = before[SCORES] == -torch.inf
    for edit in (edits.replace(SCORES, 1.0), edits.scale(SCORES, -2.0), edits.clamp(SCORES, low=0.0) * 0.5):
        with llama.edited(edit):
            acts = llama.read(prompts, [SCORES, PATTERN])
        assert torch.equal(acts[SCORES] == -torch.inf, hidden) and not acts[PATTERN][hidden].any()
    with llama.edited(edits.replace(PATTERN, 1.0)):
        assert torch.equal(llama.read(prompts, PATTERN)[PATTERN], (~hidden).float())


def test_edits_of_several_sessions_and_sites_follow_each_other(llama: op.Model, prompts: list[str]):
    plain = llama.read(prompts, SCORES)[SCORES]
    with llama.edited(edits.scale(SCORES, 2.0)), llama.edited(edits.add(SCORES, 1.0, keys="user")):
        acts = llama.read(prompts, [SCORES, PATTERN])
    user = columns(acts.batch, "user")[:, None, None]
    wanted = 2 * plain + user
    assert torch.allclose(acts[SCORES][acts.batch.mask], wanted[acts.batch.mask])
    pattern = probabilities(wanted.transpose(1, 2)).transpose(1, 2)
    assert torch.allclose(acts[PATTERN], pattern, atol=1e-6)
    with llama.edited(edits.scale(SCORES, 2.0), edits.scale(PATTERN, 0.5)):
        both = llama.read(prompts, PATTERN)[PATTERN]
    assert torch.allclose(both, 0.5 * probabilities(2 * plain.transpose(1, 2)).transpose(1, 2), atol=1e-6)


def test_an_edited_pattern_is_the_one_that_the_network_returns(make_model, prompts, forward):
    model = make_model("llama")
    model.module.set_attn_implementation("eager")
    batch = model.encode(prompts)
    plain = forward(model, batch, output_attentions=True).attentions[1]
    with model.edited(edits.scale(PATTERN, 0.5)):
        returned = forward(model, batch, output_attentions=True).attentions[1]
    mask = batch.mask[:, None].expand(-1, 4, -1)
    assert torch.allclose(returned[mask], 0.5 * plain[mask], atol=1e-6)


def test_what_is_learned_gets_gradients_where_it_changes_nothing_yet(make_model, prompts):
    model = make_model("llama")
    gate = torch.ones((), requires_grad=True)
    with model.edited(edits.function(PATTERN, lambda h: h * gate)):
        acts = model.read(prompts, "logits", grad=True)
    acts["logits"][:, -1, 7].sum().backward()
    assert gate.grad is not None and float(gate.grad) != 0


def test_a_saved_edit_keeps_its_keys(llama: op.Model, prompts: list[str], tmp_path):
    edit = edits.knockout(SCORES, "user", "last_prompt", heads=(1,)) + edits.scale(PATTERN, 0.5, keys="first:1")
    loaded = op.load_edit(edit.save(tmp_path / "one.edit"))
    assert [str(leaf.keys) for leaf in loaded.leaves()] == ["user", "first:1"]
    found = []
    for one in (edit, loaded):
        with llama.edited(one):
            found.append(llama.read(prompts, "logits")["logits"])
    assert torch.equal(*found)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_resumed_forward_gives_what_a_full_one_gives(name, case, make_model, prompts):
    model = make_model(name)
    batch = model.encode(prompts)
    kept = residuals(model, batch, [1, 2])
    sites = ["logits", PATTERN, KEYS]
    with model.edited(CASES[case][0]):
        full = model.read(batch, sites, positions="last_prompt")
        resumed = model.read(kept, sites, positions="last_prompt")
    assert resumed.layers_skipped == 1
    for site in sites:
        assert torch.allclose(resumed[site], full[site], atol=1e-4), site
