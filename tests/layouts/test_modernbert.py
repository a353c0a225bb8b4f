from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from checks import VOCABULARY, At, LayoutChecks, attention, layer_norm, linear, randomised, rotated, split
from torch import Tensor, nn

WIDTH, HIDDEN, HEADS, SIZE, WINDOW = 32, 40, 4, 8, 4


class TestModernBert(LayoutChecks):
    """Fused projections; the first block has no norm before attention; local layers see half a window to each side."""

    layout = "modernbert"
    width = WIDTH
    sizes: ClassVar = {
        **{f"attn.{name}": (HEADS, SIZE) for name in ("q", "k", "v", "heads")},
        **{f"mlp.{name}": (HIDDEN,) for name in ("gate", "up", "hidden")},
    }

    def network(self) -> nn.Module:
        from transformers import ModernBertConfig, ModernBertForMaskedLM

        shape = {"hidden_size": WIDTH, "intermediate_size": HIDDEN, "num_attention_heads": HEADS}
        special = {f"{name}_token_id": 0 for name in ("pad", "bos", "eos", "cls", "sep")}
        config = ModernBertConfig(
            vocab_size=VOCABULARY,
            num_hidden_layers=3,
            local_attention=WINDOW,
            global_attn_every_n_layers=2,
            attention_bias=True,
            mlp_bias=True,
            norm_bias=True,
            **shape,
            **special,
        )
        return randomised(ModernBertForMaskedLM(config))

    def block(self, block: Any, layer: int, config: Any, h: Tensor, at: At) -> Tensor:
        h = at("in", h)
        x = at("attn.in", layer_norm(h, block.attn_norm, config.norm_eps) if layer else h)
        fused = linear(x, block.attn.Wqkv)
        q, k, v = (
            at(f"attn.{name}", split(fused[..., index * WIDTH : (index + 1) * WIDTH], HEADS))
            for index, name in enumerate("qkv")
        )
        kind = config.layer_types[layer]
        base = config.rope_parameters[kind]["rope_theta"]
        places = torch.arange(h.shape[1])
        near = (places[:, None] - places).abs() <= WINDOW // 2
        sees = near if kind == "sliding_attention" else torch.ones_like(near)
        heads = at("attn.heads", attention(rotated(q, base), rotated(k, base), v, sees))
        mid = at("mid", h + at("attn.out", linear(heads.flatten(-2), block.attn.Wo)))
        fused = linear(at("mlp.in", layer_norm(mid, block.mlp_norm, config.norm_eps)), block.mlp.Wi)
        gate, up = at("mlp.gate", fused[..., :HIDDEN]), at("mlp.up", fused[..., HIDDEN:])
        return at("out", mid + at("mlp.out", linear(at("mlp.hidden", F.gelu(gate) * up), block.mlp.Wo)))
