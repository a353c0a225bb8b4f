"""The canary: fails when a release of transformers moves a name that optrode stands on."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import optrode as op
from optrode.engine.transformers_names import (
    BAKED_ATTENTION,
    asks_config,
    baked_config,
    branched_cache,
    cache_argument,
    cache_contents,
    cache_length,
    cache_of,
    cache_with,
    chosen_cache,
    cropped_cache,
    expert_hidden,
    expert_out,
    experts_config,
    has_fused_experts,
    is_compiled,
    keep_columns_argument,
    keeps_columns,
    new_cache,
    own_attention,
    own_experts,
    register_attention,
    renamed_config,
    rows_cache,
    uncompiled_part,
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


def test_a_cache_can_be_cropped_and_branched(model: op.Model, prompts: list[str]):
    """A row of a cache that was forked, chosen from and cropped goes on as if it had never been longer."""
    ids = torch.arange(5, 17)[None]
    name = cache_argument(model.accepts)
    assert name is not None and keeps_columns(model.config)
    with torch.no_grad():
        wanted = model.module(input_ids=ids[:, :9], use_cache=False).logits[:, -1]
        cache = new_cache()
        model.module(input_ids=ids, use_cache=True, **{name: cache})
        cache = chosen_cache(branched_cache(cropped_cache(cache, 4), 3), torch.tensor([2, 0]))
        assert cache_length(cache) == 8 and cache_contents(cache)[0][0].shape[0] == 2
        more = {"input_ids": ids[:, 8:9].expand(2, -1), "position_ids": torch.full((2, 1), 8)}
        got = model.module(**more, use_cache=True, **{name: cache}).logits[:, -1]
    assert torch.allclose(got, wanted.expand(2, -1), atol=1e-4)


def test_a_network_with_states_is_told_from_one_with_columns():
    from transformers import Gemma3TextConfig, JambaConfig

    assert not keeps_columns(JambaConfig(num_hidden_layers=4, attn_layer_period=2, attn_layer_offset=1))
    assert keeps_columns(Gemma3TextConfig(num_hidden_layers=4, sliding_window=8))


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


def test_a_baked_config_is_the_modules_own_and_calls_what_was_registered(llama: op.Model):
    """The config of the network, which all parts share, keeps the name by which its masks are made."""
    attention = llama.module.model.layers[0].self_attn
    called: list[nn.Module] = []
    _, own = own_attention(attention)

    def attend(module: nn.Module, *args: torch.Tensor, **options: object):
        called.append(module)
        return own(module, *args, **options)

    register_attention(attend, BAKED_ATTENTION)
    config = attention.config
    attention.config = baked_config(config)
    try:
        llama.read("The cat", "layers.1.out")
    finally:
        attention.config = config
    assert called == [attention]
    assert llama.module.config._attn_implementation != BAKED_ATTENTION


def test_what_torch_compile_wraps_can_be_had_back():
    plain = nn.Sequential(nn.Linear(2, 2))
    assert uncompiled_part(torch.compile(plain)) is plain and uncompiled_part(plain) is None


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


def test_attention_is_asked_for_where_we_look(model: op.Model):
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    network: nn.Module = model.module
    asking = [part for part in network.modules() if type(part).__name__.endswith("Attention")]
    assert len(asking) == 3 and all(map(asks_config, asking))
    assert not asks_config(network.lm_head)
    assert own_attention(asking[0]) == ("sdpa", ALL_ATTENTION_FUNCTIONS["sdpa"])
    network.set_attn_implementation("eager")
    try:
        name, function = own_attention(asking[0])
        assert (name, function.__name__) == ("eager", "eager_attention_forward")
        assert function.__module__ == type(network).__module__
    finally:
        network.set_attn_implementation("sdpa")


def test_a_renamed_config_shares_all_but_the_name(model: op.Model):
    own = model.config
    renamed = renamed_config(own)
    assert renamed is not own and type(renamed) is type(own)
    assert own._attn_implementation == "sdpa" and renamed._attn_implementation == "optrode"
    assert renamed.hidden_size == own.hidden_size and "optrode_own" not in own.__dict__


def test_the_upcast_attention_of_gpt2_is_where_we_look(gpt2: op.Model):
    attention = gpt2.module.transformer.h[0].attn
    assert attention.reorder_and_upcast_attn is False and callable(attention._upcast_and_reordered_attn)


def test_experts_are_run_through_the_interface_where_we_look(mixture: op.Model):
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    experts = mixture.blocks[1].mlp.experts
    assert has_fused_experts(experts) and not has_fused_experts(mixture.blocks[1].mlp)
    assert own_experts(experts) is ALL_EXPERTS_FUNCTIONS["grouped_mm"]
    own, asked = experts.config, []

    def run(module: nn.Module, *given: torch.Tensor) -> torch.Tensor:
        asked.append(module)
        return own_experts(module)(module, *given)

    experts.config = experts_config(experts, run)
    try:
        assert own_experts(experts) is ALL_EXPERTS_FUNCTIONS["grouped_mm"]
        x, chosen, weights = torch.randn(3, 32), torch.tensor([[0, 1], [2, 0], [7, 3]]), torch.rand(3, 2)
        with torch.no_grad():
            out = experts(x, chosen, weights)
    finally:
        experts.config = own
    assert asked == [experts] and own._experts_implementation == "grouped_mm"
    wanted = torch.zeros(3, 32)
    for token, rank in ((0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)):
        number = int(chosen[token, rank])
        each = expert_out(experts, number, expert_hidden(experts, number, x[token, None]))
        wanted[token] += weights[token, rank] * each[0].detach()
    torch.testing.assert_close(out, wanted, rtol=1e-4, atol=1e-5)


def test_experts_that_run_eagerly_are_their_own_forward(make_mixture):
    model = make_mixture("mixtral")
    model.module.set_experts_implementation("eager")
    experts = model.blocks[0].mlp.experts
    assert own_experts(experts) is type(experts).forward.__wrapped__


def test_a_cache_of_one_row_serves_any_number_of_rows_and_keeps_nothing():
    contents = [(torch.randn(1, 2, 5, 3), torch.randn(1, 2, 5, 3)) for _ in range(2)]
    cache = rows_cache(contents, 3)
    assert cache_length(cache) == 3 and cache.get_mask_sizes(2, 1) == (5, 0)
    for rows in (1, 4):
        keys, values = torch.randn(rows, 2, 2, 3), torch.randn(rows, 2, 2, 3)
        got = cache.update(keys, values, 1)
        for own, new, kept in zip(got, (keys, values), contents[1], strict=True):
            assert torch.equal(own, torch.cat([kept[:, :, :3].expand(rows, -1, -1, -1), new], 2))
    assert cache_length(cache) == 3
