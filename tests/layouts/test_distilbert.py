from __future__ import annotations

from typing import Any, ClassVar

import torch.nn.functional as F
from checks import VOCABULARY, At, LayoutChecks, attention, layer_norm, linear, randomised, relative_error, split
from torch import Tensor, nn

import optrode

WIDTH, HIDDEN, HEADS, SIZE = 32, 40, 4, 8


class TestDistilBert(LayoutChecks):
    layout = "distilbert"
    width = WIDTH
    sizes: ClassVar = {
        **{f"attn.{name}": (HEADS, SIZE) for name in ("q", "k", "v", "heads")},
        "mlp.up": (HIDDEN,),
        "mlp.hidden": (HIDDEN,),
    }

    def network(self) -> nn.Module:
        from transformers import DistilBertConfig, DistilBertModel

        config = DistilBertConfig(vocab_size=VOCABULARY, dim=WIDTH, hidden_dim=HIDDEN, n_heads=HEADS, n_layers=3)
        return randomised(DistilBertModel(config))

    def block(self, block: Any, layer: int, config: Any, h: Tensor, at: At) -> Tensor:
        h = at("in", h)
        q = at("attn.q", split(linear(h, block.attention.q_lin), HEADS))
        k = at("attn.k", split(linear(h, block.attention.k_lin), HEADS))
        v = at("attn.v", split(linear(h, block.attention.v_lin), HEADS))
        heads = at("attn.heads", attention(q, k, v))
        part = at("attn.out", linear(heads.flatten(-2), block.attention.out_lin))
        mid = at("mid", layer_norm(h + part, block.sa_layer_norm, 1e-12))
        hidden = at("mlp.hidden", F.gelu(at("mlp.up", linear(mid, block.ffn.lin1))))
        part = at("mlp.out", linear(hidden, block.ffn.lin2))
        return at("out", layer_norm(mid + part, block.output_layer_norm, 1e-12))

    def final(self, model: optrode.Model) -> Tensor:
        return model.module(**self.inputs()).last_hidden_state

    def test_the_ends_read(self, model: optrode.Model) -> None:
        acts = model.read(self.inputs(), ["embed", "layers.0.in", "layers.-1.out"])
        assert relative_error(acts["embed"], acts["layers.0.in"]) == 0
        assert relative_error(acts["layers.2.out"], self.final(model)) < 1e-5
