from __future__ import annotations

from typing import Any, ClassVar

from checks import At, attention, causal, linear, rotated, split
from llama_block import HEADS, KEY_HEADS, LlamaChecks
from torch import Tensor


class TestOlmo2(LlamaChecks):
    """No norm before the parts, one after; queries and keys are normed over all heads at once."""

    layout = "olmo2"
    model_type = "olmo2"
    options: ClassVar = {"attention_bias": True}

    def projected(self, module: Any, config: Any, x: Tensor, at: At) -> tuple[Tensor, Tensor, Tensor]:
        q = at("attn.q", split(self.norm(linear(x, module.q_proj), module.q_norm, config), HEADS))
        k = at("attn.k", split(self.norm(linear(x, module.k_proj), module.k_norm, config), KEY_HEADS))
        return q, k, at("attn.v", split(linear(x, module.v_proj), KEY_HEADS))

    def block(self, block: Any, layer: int, config: Any, h: Tensor, at: At) -> Tensor:
        h = at("in", h)
        x = self.attention_part(block.self_attn, layer, config, h, at)
        mid = at("mid", h + at("attn.out", self.norm(x, block.post_attention_layernorm, config)))
        x = self.mlp_part(block.mlp, mid, at)
        return at("out", mid + at("mlp.out", self.norm(x, block.post_feedforward_layernorm, config)))


class TestOlmo3(TestOlmo2):
    """The same with a sliding window in some layers."""

    model_type = "olmo3"
    options: ClassVar = {
        "sliding_window": 3,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
    }

    def turned(self, x: Tensor, layer: int, config: Any) -> Tensor:
        return rotated(x, config.rope_parameters[config.layer_types[layer]]["rope_theta"])

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: int, config: Any) -> Tensor:
        window = config.sliding_window if config.layer_types[layer] == "sliding_attention" else None
        return attention(q, k, v, causal(q.shape[1], window))
