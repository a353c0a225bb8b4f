"""The canary: fails when a release of transformers moves a name that optrode stands on."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import optrode as op
from optrode.engine.transformers_names import (
    cache_argument,
    cache_contents,
    cache_length,
    cache_of,
    cache_with,
    is_compiled,
    keep_columns_argument,
    new_cache,
)
from optrode.errors import NotSupported


def test_a_decode_step_brings_its_cache_where_we_look_for_it(model: op.Model):
    calls = []
    handle = model.base.register_forward_pre_hook(
        lambda _, args, kwargs: calls.append(cache_length(cache_of(args, kwargs))), with_kwargs=True
    )
    try:
        batch = model.encode("The cat")
        model.module.generate(
            input_ids=batch.ids, attention_mask=batch.mask.long(), max_new_tokens=3, min_new_tokens=3, do_sample=False
        )
    finally:
        handle.remove()
    assert calls == [0, batch.width, batch.width + 1]


def test_arguments_that_are_passed_are_accepted(model: op.Model):
    assert {"input_ids", "attention_mask", "position_ids", "use_cache"} <= model.accepts
    assert cache_argument(model.accepts) in ("cache", "past_key_values")
    assert keep_columns_argument(model.head_accepts) == "logits_to_keep"
    assert keep_columns_argument(frozenset()) is None and cache_argument(frozenset({"input_ids"})) is None


def test_no_cache_is_made_when_none_is_wanted(model: op.Model, prompts: list[str]):
    batch = model.encode(prompts)
    with torch.no_grad():
        output = model.base(input_ids=batch.ids, attention_mask=batch.mask.long(), use_cache=False)
    assert cache_of((), dict(output)) is None


def test_a_cache_can_be_filled_and_looked_into(model: op.Model):
    batch = model.encode("The cat sat on the mat")
    cache = new_cache()
    with torch.no_grad():
        model.base(input_ids=batch.ids, use_cache=True, **{cache_argument(model.accepts): cache})
    contents = cache_contents(cache)
    assert len(contents) == model.layers and cache_length(cache) == batch.width
    assert all(keys.shape == values.shape and keys.shape[2] == batch.width for keys, values in contents)
    part = cache_with(contents, 4)
    assert cache_length(part) == 4
    assert torch.equal(cache_contents(part)[1][1], contents[1][1][:, :, :4])
    cache_with(contents, 4).update(*contents[0], 0)
    assert cache_length(cache) == batch.width, "what is built from a cache does not write into it"


def test_no_cache_has_no_columns():
    assert cache_length(None) == 0 and cache_of((), {"cache": None}) is None


def test_compiled_networks_are_recognised():
    plain = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    assert not is_compiled(plain)
    assert is_compiled(torch.compile(plain))
    assert is_compiled(nn.Sequential(torch.compile(nn.Linear(2, 2)), nn.ReLU()))
    inside = nn.Sequential(nn.Linear(2, 2))
    inside[0].compile()
    assert is_compiled(inside)


def test_a_compiled_network_is_not_edited():
    model = op.load(torch.compile(nn.Sequential(nn.Linear(2, 2))))
    edit = op.edits.zero_ablate("module:_orig_mod.0")
    with pytest.raises(NotSupported, match=r"before torch\.compile"), model.edited(edit):
        pass


def test_generate_still_accepts_what_keeps_decoding_uncompiled(llama: op.Model):
    batch = llama.encode("The cat")
    llama.module.generate(
        input_ids=batch.ids, attention_mask=batch.mask.long(), max_new_tokens=1, do_sample=False, disable_compile=True
    )
