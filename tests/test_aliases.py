"""Names of TransformerLens and module paths lead to the same activations, or say why there is none."""

from __future__ import annotations

import pytest
import torch

import optrode as op
from optrode import edits
from optrode.aliases import IN_BLOCK, OUTSIDE, addresses_of
from optrode.errors import UnknownSite


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_every_alias_resolves_to_a_site_that_is_there(name: str, request: pytest.FixtureRequest) -> None:
    model: op.Model = request.getfixturevalue(name)
    for alias in IN_BLOCK:
        found = model.sites.match(f"blocks.1.{alias}")
        assert len(found) == 1 and found[0] in model.table, alias
    for alias in OUTSIDE:
        assert len(model.sites.match(alias)) == 1


def test_an_alias_reads_what_the_module_gives(llama: op.Model, gpt2: op.Model) -> None:
    for model, block in ((llama, "model.layers.1"), (gpt2, "transformer.h.1")):
        acts = model.read("The cat sat", ["blocks.1.hook_resid_post", "blocks.1.hook_mlp_out"])
        assert list(acts) == ["layers.1.mlp.out", "layers.1.out"], "results carry our addresses"
        raw = model.read("The cat sat", [f"module:{block}", f"module:{block}.mlp"])
        assert torch.equal(acts["layers.1.out"], raw[f"module:{block}"])
        assert torch.equal(acts["layers.1.mlp.out"], raw[f"module:{block}.mlp"])


def test_the_activation_before_the_function_is_the_gate_where_there_is_one(llama: op.Model, gpt2: op.Model) -> None:
    assert llama.sites.match("blocks.2.mlp.hook_pre") == ["layers.2.mlp.gate"]
    assert gpt2.sites.match("blocks.2.mlp.hook_pre") == ["layers.2.mlp.up"]


def test_the_token_embedding_is_never_the_sum_with_positions(llama: op.Model, gpt2: op.Model) -> None:
    assert llama.sites.match("hook_embed") == ["embed"]
    assert gpt2.sites.match("hook_embed") == ["module:transformer.wte"], "its embed holds positions too"


def test_patterns_and_edits_take_aliases(llama: op.Model) -> None:
    assert llama.sites.match("blocks.*.hook_resid_post") == llama.sites.match("layers.*.out")
    parts = llama.sites.match("layers.0-1.{attn,mlp}.out")
    assert llama.sites.match("blocks.0-1.{hook_attn_out,hook_mlp_out}") == parts
    assert llama.sites.match("blocks.1.hook_resid_*") == ["layers.1.in", "layers.1.mid", "layers.1.out"]
    with llama.edited(edits.zero_ablate("blocks.1.attn.hook_z", heads=(2,))) as receipt:
        got = llama.read("The cat sat", "blocks.1.attn.hook_z")["layers.1.attn.heads"]
    assert list(receipt.sites) == ["layers.1.attn.heads"]
    assert bool((got[:, :, 2] == 0).all()) and bool((got[:, :, 1] != 0).any())


@pytest.mark.parametrize(
    ("alias", "says"),
    [
        ("blocks.1.hook_resid_pst", "did you mean blocks.1.hook_resid_post"),
        ("blocks.1.attn.hook_result", r"read layers\.N\.attn\.heads"),
        ("blocks.9.hook_resid_pre", r"no such site: did you mean layers\.\d\.in"),
        ("hook_pos_embed", "added or applied inside"),
        ("blocks.1.hook_nothing_at_all_*", "no activation here"),
    ],
)
def test_an_alias_that_stands_for_nothing_is_refused(llama: op.Model, alias: str, says: str) -> None:
    with pytest.raises(UnknownSite, match=says) as caught:
        llama.read("The cat", alias)
    assert "\n" not in str(caught.value)


def test_a_sum_before_a_norm_is_not_passed_off_as_the_stream() -> None:
    """BERT's `hook_resid_post` is the sum, its `out` is that sum normed."""
    from transformers import BertConfig, BertModel

    shape = {"hidden_size": 16, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = op.load(BertModel(BertConfig(vocab_size=50, **shape)).eval())
    with pytest.raises(UnknownSite, match="before the norm"):
        model.sites.match("blocks.1.hook_resid_post")
    assert model.sites.match("blocks.1.hook_resid_pre") == ["layers.1.in"]
    assert "TransformerLens" not in model.sites.explain("layers.1.out")


def test_a_module_path_is_an_address(llama: op.Model) -> None:
    acts = llama.read("The cat", ["model.layers.1.mlp", "model.layers.1.mlp:in"])
    assert list(acts) == ["module:model.layers.1.mlp", "module:model.layers.1.mlp:in"]
    assert "the same as layers.1.mlp.out" in llama.sites.explain("model.layers.1.mlp")
    assert "the same as" not in llama.sites.explain("model.layers.1.self_attn.q_proj"), "attn.q has a head axis"
    with llama.edited(edits.zero_ablate("model.layers.1.mlp")) as receipt:
        llama.read("The cat", "layers.1.out")
    assert receipt.changed
    with pytest.raises(UnknownSite):
        llama.read("The cat", "model.layers.1.mpl")


def test_an_address_is_never_taken_for_a_module_of_an_unknown_network() -> None:
    """A linear layer that happens to be called `out` is not the stream after its block."""
    block = torch.nn.ModuleDict({"out": torch.nn.Linear(2, 2)})
    network = torch.nn.Sequential(torch.nn.Linear(2, 2))
    network.layers = torch.nn.ModuleList([block])
    model = op.load(network, layout=None)
    with pytest.raises(UnknownSite, match="has no layout"):
        model.sites.match("layers.0.out")
    assert model.sites.match("module:layers.0.out") == ["module:layers.0.out"]


def test_explain_says_shape_equation_and_both_names(llama: op.Model) -> None:
    said = llama.sites.explain("layers.1.attn.k")
    assert "head 2, feature 8" in said and "blocks.1.attn.hook_k" in said
    assert "softmax" in llama.sites.explain("layers.1.attn.pattern")
    assert "blocks.1.attn.hook_pattern" in llama.sites.explain("layers.1.attn.pattern")
    assert "head 4, key" in llama.sites.explain("layers.1.attn.pattern")
    assert "measured on load" in llama.sites.explain("layers.1.mid")


def test_other_texts_are_left_alone() -> None:
    assert addresses_of("layers.3.out") is None and addresses_of("module:x.hook_z") is None
