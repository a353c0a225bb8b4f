"""What attention cannot do is refused by name."""

from __future__ import annotations

import pytest
import torch
from second_attention import HEADS, KEYS, PATTERN, SCORES, attention_of

import optrode as op
from optrode import edits
from optrode.engine.transformers_names import ATTENTION
from optrode.errors import EditDidNothing, NotFinite, NotSupported, UnknownSite, WrongShape


def test_mistakes_are_named_before_anything_runs(llama: op.Model):
    for wrong, kind, words in (
        (edits.zero_ablate(HEADS, keys="user"), WrongShape, "no keys"),
        (edits.SiteEdit(PATTERN, edits.Knockout()), NotSupported, "attn.scores"),
        (edits.knockout("layers.1.out", "user"), WrongShape, "no keys"),
        (edits.knockout("layers.1.attn.score", "user"), UnknownSite, "attn.scores"),
    ):
        with pytest.raises(kind, match=words), llama.edited(wrong):
            pytest.fail("it was entered")


def test_a_knockout_turned_round_is_no_number(llama: op.Model):
    with pytest.raises(NotFinite), llama.edited(-edits.knockout(SCORES, "user")):
        llama.read("The cat", "logits")


def test_a_knockout_that_selects_no_query_did_nothing(llama: op.Model):
    with pytest.raises(EditDidNothing), llama.edited(edits.knockout(SCORES, "user", "generated")):
        llama.read("The cat", "logits")


def test_other_attention_functions_keep_scores_and_pattern(make_model, prompts, forward):
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    model = make_model("llama")
    batch = model.encode(prompts)
    ALL_ATTENTION_FUNCTIONS.register("quick", ALL_ATTENTION_FUNCTIONS["sdpa"])
    try:
        model.config._attn_implementation_internal = "quick"
        with pytest.raises(NotSupported, match="quick"):
            model.read(batch, PATTERN)
        with pytest.raises(NotSupported, match="quick"), model.edited(edits.scale(SCORES, 2.0)):
            model.read(batch, "logits")
        own = forward(model, batch).logits
        assert torch.equal(model.read(batch, [KEYS, "logits"])["logits"], own)
        with model.edited(edits.scale(KEYS, 2.0)):
            assert not torch.equal(forward(model, batch).logits, own)
    finally:
        ALL_ATTENTION_FUNCTIONS._global_mapping.pop("quick")


def test_gradients_through_the_pattern_need_attention_without_dropout(make_model, prompts):
    model = make_model("llama")
    for layer in range(3):
        attention_of(model, layer).attention_dropout = 0.5
    model.read(prompts, [PATTERN, "logits"], grad=True)
    model.module.train()
    model.read(prompts, [PATTERN, "logits"])
    with pytest.raises(NotSupported, match="eval"):
        model.read(prompts, [PATTERN, "logits"], grad=True)


def test_our_name_is_no_choice_for_a_network(make_model):
    model = make_model("llama")
    model.read("The cat", PATTERN)
    model.config._attn_implementation_internal = ATTENTION
    with pytest.raises(NotSupported, match="sdpa or eager"):
        model.module(torch.tensor([[1, 2]]))
