from __future__ import annotations

from typing import Any, ClassVar

from checks import At, attention, causal
from llama_block import LlamaChecks
from torch import Tensor


class TestGranite(LlamaChecks):
    """Fixed multipliers that no module holds."""

    layout = "granite"
    model_type = "granite"
    options: ClassVar = {
        "residual_multiplier": 0.3,
        "attention_multiplier": 0.2,
        "embedding_multiplier": 3.0,
        "logits_scaling": 4.0,
        "attention_bias": True,
    }

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: int, config: Any) -> Tensor:
        return attention(q, k, v, causal(q.shape[1]), config.attention_multiplier)

    def block(self, block: Any, layer: int, config: Any, h: Tensor, at: At) -> Tensor:
        h = at("in", h)
        x = at("attn.in", self.norm(h, block.input_layernorm, config))
        x = at("attn.out", self.attention_part(block.self_attn, layer, config, x, at))
        mid = at("mid", h + config.residual_multiplier * x)
        x = at("mlp.in", self.norm(mid, block.post_attention_layernorm, config))
        return at("out", mid + config.residual_multiplier * at("mlp.out", self.mlp_part(block.mlp, x, at)))
