from __future__ import annotations

from typing import Any, ClassVar

import torch.nn.functional as F
from checks import ROWS, At, LayoutChecks, attention, layer_norm, linear, pictures, randomised, split
from torch import Tensor, nn

import optrode

WIDTH, HIDDEN, HEADS, SIZE, SIDE = 32, 40, 4, 8, 8
SHAPE = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 3,
    "num_attention_heads": HEADS,
    "image_size": SIDE,
    "patch_size": 4,
    "num_labels": 5,
}


class TestViT(LayoutChecks):
    layout = "vit"
    width = WIDTH
    sizes: ClassVar = {
        **{f"attn.{name}": (HEADS, SIZE) for name in ("q", "k", "v", "heads")},
        "mlp.up": (HIDDEN,),
        "mlp.hidden": (HIDDEN,),
    }

    def network(self) -> nn.Module:
        from transformers import ViTConfig, ViTForImageClassification

        return randomised(ViTForImageClassification(ViTConfig(intermediate_size=HIDDEN, **SHAPE)))

    def inputs(self) -> dict[str, Tensor]:
        return pictures(SIDE)

    def block(self, block: Any, layer: int, config: Any, h: Tensor, at: At) -> Tensor:
        eps, attn = config.layer_norm_eps, block.attention
        h = at("in", h)
        x = at("attn.in", layer_norm(h, block.layernorm_before, eps))
        q = at("attn.q", split(linear(x, attn.q_proj), HEADS))
        k = at("attn.k", split(linear(x, attn.k_proj), HEADS))
        v = at("attn.v", split(linear(x, attn.v_proj), HEADS))
        heads = at("attn.heads", attention(q, k, v))
        mid = at("mid", h + at("attn.out", linear(heads.flatten(-2), attn.o_proj)))
        x = at("mlp.in", layer_norm(mid, block.layernorm_after, eps))
        hidden = at("mlp.hidden", F.gelu(at("mlp.up", linear(x, block.mlp.fc1))))
        return at("out", mid + at("mlp.out", linear(hidden, block.mlp.fc2)))

    def test_one_class_token_and_a_patch_each(self, model: optrode.Model) -> None:
        acts = model.read(self.inputs(), ["embed", "final"])
        assert acts.axes["final"] == ("example", "patch", "feature")
        assert acts["final"].shape == acts["embed"].shape == (ROWS, 1 + (SIDE // 4) ** 2, WIDTH)
