"""The Llama block by hand, with its variations as methods, for the test of every layout that is one of them."""

from __future__ import annotations

from typing import Any, ClassVar

import torch.nn.functional as F
from checks import VOCABULARY, At, LayoutChecks, attention, causal, linear, randomised, rms_norm, rotated, split
from torch import Tensor, nn

WIDTH, HIDDEN, HEADS, KEY_HEADS, SIZE = 32, 48, 4, 2, 8
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": HIDDEN,
    "num_hidden_layers": 3,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KEY_HEADS,
    "pad_token_id": 0,
}


class LlamaChecks(LayoutChecks):
    """The Llama block on a network of the real class that `model_type` names."""

    layout = "llama"
    model_type: ClassVar[str] = "llama"
    options: ClassVar[dict[str, Any]] = {}
    width = WIDTH
    sizes: ClassVar = {
        "attn.q": (HEADS, SIZE),
        "attn.k": (KEY_HEADS, SIZE),
        "attn.v": (KEY_HEADS, SIZE),
        "attn.heads": (HEADS, SIZE),
        "mlp.gate": (HIDDEN,),
        "mlp.up": (HIDDEN,),
        "mlp.hidden": (HIDDEN,),
    }

    def network(self) -> nn.Module:
        from transformers import AutoConfig, AutoModelForCausalLM

        config = AutoConfig.for_model(self.model_type, **(SHAPE | self.options))
        return randomised(AutoModelForCausalLM.from_config(config))

    # What the relatives do differently -----------------------------------------------------------------------------

    def norm(self, x: Tensor, module: nn.Module, config: Any) -> Tensor:
        return rms_norm(x, module, config.rms_norm_eps)

    def head_norm(self, x: Tensor, module: nn.Module | None, config: Any) -> Tensor:
        return x

    def turned(self, x: Tensor, layer: int, config: Any) -> Tensor:
        return rotated(x, config.rope_parameters["rope_theta"])

    def activation(self, gate: Tensor) -> Tensor:
        return F.silu(gate)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: int, config: Any) -> Tensor:
        return attention(q, k, v, causal(q.shape[1]))

    # The block -----------------------------------------------------------------------------------------------------

    def block(self, block: Any, layer: int, config: Any, h: Tensor, at: At) -> Tensor:
        h = at("in", h)
        x = at("attn.in", self.norm(h, block.input_layernorm, config))
        part = at("attn.out", self.attention_part(block.self_attn, layer, config, x, at))
        mid = at("mid", h + part)
        x = at("mlp.in", self.norm(mid, block.post_attention_layernorm, config))
        return at("out", mid + at("mlp.out", self.mlp_part(block.mlp, x, at)))

    def attention_part(self, module: Any, layer: int, config: Any, x: Tensor, at: At) -> Tensor:
        q, k, v = self.projected(module, config, x, at)
        q, k = self.turned(q, layer, config), self.turned(k, layer, config)
        heads = at("attn.heads", self.attend(q, k, v, layer, config))
        return linear(heads.flatten(-2), module.o_proj)

    def projected(self, module: Any, config: Any, x: Tensor, at: At) -> tuple[Tensor, Tensor, Tensor]:
        q = split(linear(x, module.q_proj), HEADS)
        k = split(linear(x, module.k_proj), KEY_HEADS)
        q = at("attn.q", self.head_norm(q, getattr(module, "q_norm", None), config))
        k = at("attn.k", self.head_norm(k, getattr(module, "k_norm", None), config))
        return q, k, at("attn.v", split(linear(x, module.v_proj), KEY_HEADS))

    def mlp_part(self, module: Any, x: Tensor, at: At) -> Tensor:
        gate = at("mlp.gate", linear(x, module.gate_proj))
        up = at("mlp.up", linear(x, module.up_proj))
        return linear(at("mlp.hidden", self.activation(gate) * up), module.down_proj)


class GemmaChecks(LlamaChecks):
    """Norms scale by 1 + weight, and stand before and after each part; the gate goes through GELU."""

    def norm(self, x: Tensor, module: nn.Module, config: Any) -> Tensor:
        return rms_norm(x, module, config.rms_norm_eps, offset=1.0)

    def activation(self, gate: Tensor) -> Tensor:
        return F.gelu(gate, approximate="tanh")

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: int, config: Any) -> Tensor:
        window = config.sliding_window if config.layer_types[layer] == "sliding_attention" else None
        scale = config.query_pre_attn_scalar**-0.5
        return attention(q, k, v, causal(q.shape[1], window), scale, cap=config.attn_logit_softcapping)

    def block(self, block: Any, layer: int, config: Any, h: Tensor, at: At) -> Tensor:
        h = at("in", h)
        x = at("attn.in", self.norm(h, block.input_layernorm, config))
        x = self.attention_part(block.self_attn, layer, config, x, at)
        mid = at("mid", h + at("attn.out", self.norm(x, block.post_attention_layernorm, config)))
        x = at("mlp.in", self.norm(mid, block.pre_feedforward_layernorm, config))
        x = self.mlp_part(block.mlp, x, at)
        return at("out", mid + at("mlp.out", self.norm(x, block.post_feedforward_layernorm, config)))
