from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from checks import At, attention, causal, linear, relative_error
from llama_block import HEADS, KEY_HEADS, SHAPE, LlamaChecks, split
from torch import Tensor

import optrode
from optrode.errors import UnknownSite


class TestJamba(LlamaChecks):
    """Block 1 has attention, blocks 0 and 2 a mixer in its place. What the mixer computes is taken from the network."""

    layout = "jamba"
    model_type = "jamba"
    options: ClassVar = {
        "attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 1, "num_experts_per_tok": 1,
        "use_mamba_kernels": False, "mamba_d_state": 4, "mamba_dt_rank": 4,
    }  # fmt: skip

    def block(self, block: Any, layer: int, config: Any, h: Tensor, at: At) -> Tensor:
        h = at("in", h)
        mixes = layer != 1
        x = at("mixer.in" if mixes else "attn.in", self.norm(h, block.input_layernorm, config))
        part = at("mixer.out", block.mamba(x)) if mixes else at("attn.out", self.attended(block.self_attn, x, at))
        mid = at("mid", h + part)
        x = at("mlp.in", self.norm(mid, block.pre_ff_layernorm, config))
        return at("out", mid + at("mlp.out", self.mlp_part(block.feed_forward, x, at)))

    def attended(self, module: Any, x: Tensor, at: At) -> Tensor:
        q = at("attn.q", split(linear(x, module.q_proj), HEADS))
        k = at("attn.k", split(linear(x, module.k_proj), KEY_HEADS))
        v = at("attn.v", split(linear(x, module.v_proj), KEY_HEADS))
        heads = at("attn.heads", attention(q, k, v, causal(x.shape[1])))
        return linear(heads.flatten(-2), module.o_proj)

    def test_the_pattern_is_the_one_that_the_network_can_return(self, model: optrode.Model) -> None:
        """There is one for each block with attention."""
        pattern = model.read(self.inputs(), "layers.1.attn.pattern")["layers.1.attn.pattern"]
        other = self.network()
        other.set_attn_implementation("eager")
        all_returned = other(**self.inputs(), output_attentions=True).attentions
        (returned,) = (found for found in all_returned if found is not None)
        assert relative_error(pattern, returned.transpose(1, 2)) < 1e-5

    def test_each_block_has_the_sites_of_its_kind(self, model: optrode.Model) -> None:
        assert model.sites.match("layers.*.attn.out") == ["layers.1.attn.out"]
        assert model.sites.match("layers.*.mixer.out") == ["layers.0.mixer.out", "layers.2.mixer.out"]
        assert model.table["layers.0.mid"].adds_to == "layers.0.mixer.out"
        assert model.table["layers.1.mid"].adds_to == "layers.1.attn.out"
        with pytest.raises(UnknownSite):
            model.sites.match("layers.0.attn.out")

    def test_the_middle_of_a_mixing_block_can_be_written(self, model: optrode.Model) -> None:
        vector = torch.linspace(-1, 1, SHAPE["hidden_size"])
        plain = model.read(self.inputs(), ["layers.2.mid", "layers.2.mlp.in"])
        with model.edited(optrode.edits.add("layers.2.mid", vector)):
            got = model.read(self.inputs(), "layers.2.mlp.in")["layers.2.mlp.in"]
        norm = model.blocks[2].pre_ff_layernorm
        torch.testing.assert_close(got, norm(plain["layers.2.mid"] + vector), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(got, plain["layers.2.mlp.in"], atol=1e-2)
