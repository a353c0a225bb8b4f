from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch.nn.functional as F
from checks import VOCABULARY, At, LayoutChecks, attention, causal, layer_norm, linear, randomised, rotated
from torch import Tensor, nn

import optrode
from optrode.errors import NotSupported

WIDTH, HIDDEN, HEADS, SIZE = 32, 40, 4, 8


class FalconChecks(LayoutChecks):
    layout = "falcon"
    width = WIDTH
    options: ClassVar[dict[str, Any]]
    key_heads: ClassVar[int]

    def network(self) -> nn.Module:
        from transformers import FalconConfig, FalconForCausalLM

        shape = {"hidden_size": WIDTH, "ffn_hidden_size": HIDDEN, "num_attention_heads": HEADS}
        config = FalconConfig(vocab_size=VOCABULARY, num_hidden_layers=3, **shape, **self.options)
        return randomised(FalconForCausalLM(config))

    def block(self, block: Any, layer: int, config: Any, h: Tensor, at: At) -> Tensor:
        h = at("in", h)
        x = layer_norm(h, self.first_norm(block), config.layer_norm_epsilon)
        part = at("attn.out", self.attention_part(block.self_attention, at("attn.in", x), at))
        stream, x = self.mlp_input(block, config, h, x, part, at)
        up = at("mlp.up", linear(at("mlp.in", x), block.mlp.dense_h_to_4h))
        return at("out", stream + at("mlp.out", linear(at("mlp.hidden", F.gelu(up)), block.mlp.dense_4h_to_h)))

    def first_norm(self, block: Any) -> nn.Module:
        return block.input_layernorm

    def mlp_input(self, block: Any, config: Any, h: Tensor, x: Tensor, part: Tensor, at: At) -> tuple[Tensor, Tensor]:
        """What the MLP's part is added to, and what the MLP reads."""
        return h + part, x

    def attention_part(self, attn: Any, x: Tensor, at: At) -> Tensor:
        group = HEADS // self.key_heads
        fused = linear(x, attn.query_key_value).unflatten(-1, (self.key_heads, group + 2, SIZE))
        q = at("attn.q", fused[..., :group, :].flatten(-3, -2))
        k, v = at("attn.k", fused[..., group, :]), at("attn.v", fused[..., group + 1, :])
        heads = at("attn.heads", attention(rotated(q, 10000.0), rotated(k, 10000.0), v, causal(x.shape[1])))
        return linear(heads.flatten(-2), attn.dense)

    def test_a_value_that_the_network_overwrites_is_refused_with_gradients(self, model: optrode.Model) -> None:
        if "layers.1.mid" in model.table:
            assert model.read(self.inputs(), ["layers.1.mlp.out", "layers.1.out"], grad=True)
            return
        with pytest.raises(NotSupported, match=r"layers\.1\.mlp\.out is overwritten"):
            model.read(self.inputs(), ["layers.1.mlp.out", "layers.1.out"], grad=True)


def _sizes(key_heads: int) -> dict[str, tuple[int, ...]]:
    return {
        "attn.q": (HEADS, SIZE),
        "attn.k": (key_heads, SIZE),
        "attn.v": (key_heads, SIZE),
        "attn.heads": (HEADS, SIZE),
        "mlp.up": (HIDDEN,),
        "mlp.hidden": (HIDDEN,),
    }


class TestFalcon7B(FalconChecks):
    """One key head, one norm, attention and MLP side by side."""

    options: ClassVar = {"bias": True}
    key_heads = 1
    sizes: ClassVar = _sizes(1)
    equations = 1
    swapped = ("attn.in", "mlp.out")


class TestFalcon40B(FalconChecks):
    """Grouped key heads, a norm for each part."""

    options: ClassVar = {"new_decoder_architecture": True, "num_kv_heads": 2, "bias": True}
    key_heads = 2
    sizes: ClassVar = _sizes(2)
    equations = 1
    swapped = ("attn.in", "mlp.out")

    def first_norm(self, block: Any) -> nn.Module:
        return block.ln_attn

    def mlp_input(self, block: Any, config: Any, h: Tensor, x: Tensor, part: Tensor, at: At) -> tuple[Tensor, Tensor]:
        return h + part, layer_norm(h, block.ln_mlp, config.layer_norm_epsilon)


class TestFalconSequential(FalconChecks):
    """As many key heads as query heads, one part after the other."""

    options: ClassVar = {"multi_query": False, "parallel_attn": False, "bias": True}
    key_heads = HEADS
    sizes: ClassVar = _sizes(HEADS)

    def mlp_input(self, block: Any, config: Any, h: Tensor, x: Tensor, part: Tensor, at: At) -> tuple[Tensor, Tensor]:
        mid = at("mid", h + part)
        return mid, layer_norm(mid, block.post_attention_layernorm, config.layer_norm_epsilon)
