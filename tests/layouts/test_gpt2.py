from __future__ import annotations

from typing import Any, ClassVar

import torch.nn.functional as F
from checks import VOCABULARY, At, LayoutChecks, attention, causal, layer_norm, randomised, split
from torch import Tensor, nn

WIDTH, HIDDEN, HEADS, SIZE = 32, 40, 4, 8


def conv1d(x: Tensor, module: Any) -> Tensor:
    """GPT-2 keeps its matrices the other way round."""
    return x @ module.weight + module.bias


class TestGPT2(LayoutChecks):
    layout = "gpt2"
    width = WIDTH
    sizes: ClassVar = {
        **{f"attn.{name}": (HEADS, SIZE) for name in ("q", "k", "v", "heads")},
        "mlp.up": (HIDDEN,),
        "mlp.hidden": (HIDDEN,),
    }

    def network(self) -> nn.Module:
        from transformers import GPT2Config, GPT2LMHeadModel

        shape = {"n_embd": WIDTH, "n_inner": HIDDEN, "n_head": HEADS, "n_layer": 3, "n_positions": 16}
        return randomised(GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, **shape)))

    def block(self, block: Any, layer: int, config: Any, h: Tensor, at: At) -> Tensor:
        eps = config.layer_norm_epsilon
        h = at("in", h)
        fused = conv1d(at("attn.in", layer_norm(h, block.ln_1, eps)), block.attn.c_attn)
        q, k, v = (
            at(f"attn.{name}", split(fused[..., index * WIDTH : (index + 1) * WIDTH], HEADS))
            for index, name in enumerate("qkv")
        )
        heads = at("attn.heads", attention(q, k, v, causal(h.shape[1])))
        mid = at("mid", h + at("attn.out", conv1d(heads.flatten(-2), block.attn.c_proj)))
        up = at("mlp.up", conv1d(at("mlp.in", layer_norm(mid, block.ln_2, eps)), block.mlp.c_fc))
        hidden = at("mlp.hidden", F.gelu(up, approximate="tanh"))
        return at("out", mid + at("mlp.out", conv1d(hidden, block.mlp.c_proj)))
