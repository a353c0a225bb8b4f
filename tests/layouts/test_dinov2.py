from __future__ import annotations

from typing import Any, ClassVar

import torch.nn.functional as F
from checks import At, LayoutChecks, attention, layer_norm, linear, pictures, randomised, split
from torch import Tensor, nn

WIDTH, HEADS, SIZE, SIDE = 32, 4, 8, 8


class TestDinov2(LayoutChecks):
    layout = "dinov2"
    width = WIDTH
    gated: ClassVar[bool] = False
    sizes: ClassVar = {
        **{f"attn.{name}": (HEADS, SIZE) for name in ("q", "k", "v", "heads")},
        "mlp.up": (64,),
        "mlp.hidden": (64,),
    }

    def network(self) -> nn.Module:
        from transformers import Dinov2Config, Dinov2ForImageClassification

        shape = {"hidden_size": WIDTH, "num_hidden_layers": 3, "num_attention_heads": HEADS, "mlp_ratio": 2}
        picture = {"image_size": SIDE, "patch_size": 4, "num_labels": 5}
        return randomised(Dinov2ForImageClassification(Dinov2Config(use_swiglu_ffn=self.gated, **shape, **picture)))

    def inputs(self) -> dict[str, Tensor]:
        return pictures(SIDE)

    def block(self, block: Any, layer: int, config: Any, h: Tensor, at: At) -> Tensor:
        eps, attn = config.layer_norm_eps, block.attention
        h = at("in", h)
        x = at("attn.in", layer_norm(h, block.norm1, eps))
        q = at("attn.q", split(linear(x, attn.q_proj), HEADS))
        k = at("attn.k", split(linear(x, attn.k_proj), HEADS))
        v = at("attn.v", split(linear(x, attn.v_proj), HEADS))
        heads = at("attn.heads", attention(q, k, v))
        mid = at("mid", h + at("attn.out", block.layer_scale1.lambda1 * linear(heads.flatten(-2), attn.o_proj)))
        x = at("mlp.in", layer_norm(mid, block.norm2, eps))
        return at("out", mid + at("mlp.out", block.layer_scale2.lambda1 * self.mlp(block.mlp, x, at)))

    def mlp(self, mlp: Any, x: Tensor, at: At) -> Tensor:
        return linear(at("mlp.hidden", F.gelu(at("mlp.up", linear(x, mlp.fc1)))), mlp.fc2)


class TestDinov2Gated(TestDinov2):
    """The MLP of the largest DINOv2: two thirds of the width, rounded up to a multiple of 8."""

    gated = True
    sizes: ClassVar = {**TestDinov2.sizes, "mlp.gate": (48,), "mlp.up": (48,), "mlp.hidden": (48,)}

    def mlp(self, mlp: Any, x: Tensor, at: At) -> Tensor:
        gate, up = at("mlp.gate", linear(x, mlp.gate_proj)), at("mlp.up", linear(x, mlp.up_proj))
        return linear(at("mlp.hidden", F.silu(gate) * up), mlp.down_proj)
