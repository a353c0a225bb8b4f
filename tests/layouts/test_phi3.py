from __future__ import annotations

from typing import Any

from checks import At, linear, split
from llama_block import HEADS, KEY_HEADS, SIZE, LlamaChecks
from torch import Tensor


class TestPhi3(LlamaChecks):
    """One projection for q, k and v, another for the gate and the other factor."""

    layout = "phi3"
    model_type = "phi3"

    def projected(self, module: Any, config: Any, x: Tensor, at: At) -> tuple[Tensor, Tensor, Tensor]:
        fused = linear(x, module.qkv_proj)
        ends = HEADS * SIZE, (HEADS + KEY_HEADS) * SIZE
        q = at("attn.q", split(fused[..., : ends[0]], HEADS))
        k = at("attn.k", split(fused[..., ends[0] : ends[1]], KEY_HEADS))
        return q, k, at("attn.v", split(fused[..., ends[1] :], KEY_HEADS))

    def mlp_part(self, module: Any, x: Tensor, at: At) -> Tensor:
        fused = linear(x, module.gate_up_proj)
        size = fused.shape[-1] // 2
        gate, up = at("mlp.gate", fused[..., :size]), at("mlp.up", fused[..., size:])
        return linear(at("mlp.hidden", self.activation(gate) * up), module.down_proj)
