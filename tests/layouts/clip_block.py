"""The block of CLIP and SigLIP by hand, for the tests of their encoders of pictures and of texts."""

from __future__ import annotations

from typing import Any, ClassVar

import torch.nn.functional as F
from checks import VOCABULARY, At, LayoutChecks, attention, layer_norm, linear, pictures, randomised, split
from torch import Tensor, nn

import optrode

WIDTH, HIDDEN, HEADS, SIZE, SIDE = 32, 40, 4, 8, 8
SHAPE = {"hidden_size": WIDTH, "intermediate_size": HIDDEN, "num_hidden_layers": 3, "num_attention_heads": HEADS}
PICTURES = {**SHAPE, "image_size": SIDE, "patch_size": 4}
TEXTS = {**SHAPE, "vocab_size": VOCABULARY, "max_position_embeddings": 16, "eos_token_id": 2, "bos_token_id": 1}


class ClipChecks(LayoutChecks):
    width = WIDTH
    sizes: ClassVar = {
        **{f"attn.{name}": (HEADS, SIZE) for name in ("q", "k", "v", "heads")},
        "mlp.up": (HIDDEN,),
        "mlp.hidden": (HIDDEN,),
    }
    kind: ClassVar[str]
    options: ClassVar[dict[str, Any]]
    ends: ClassVar[tuple[str, ...]]

    def network(self) -> nn.Module:
        import transformers

        config, network = (getattr(transformers, self.kind + ending) for ending in ("Config", "Model"))
        return randomised(network(config(**self.options)))

    def inputs(self) -> dict[str, Tensor]:
        return super().inputs() if self.options is TEXTS else pictures(SIDE)

    def sees(self, tokens: int) -> Tensor | None:
        return None

    def activation(self, x: Tensor) -> Tensor:
        """CLIP's quick stand-in for GELU."""
        return x * (1.702 * x).sigmoid()

    def block(self, block: Any, layer: int, config: Any, h: Tensor, at: At) -> Tensor:
        eps, attn = config.layer_norm_eps, block.self_attn
        h = at("in", h)
        x = at("attn.in", layer_norm(h, block.layer_norm1, eps))
        q = at("attn.q", split(linear(x, attn.q_proj), HEADS))
        k = at("attn.k", split(linear(x, attn.k_proj), HEADS))
        v = at("attn.v", split(linear(x, attn.v_proj), HEADS))
        heads = at("attn.heads", attention(q, k, v, self.sees(h.shape[1])))
        mid = at("mid", h + at("attn.out", linear(heads.flatten(-2), attn.out_proj)))
        x = at("mlp.in", layer_norm(mid, block.layer_norm2, eps))
        hidden = at("mlp.hidden", self.activation(at("mlp.up", linear(x, block.mlp.fc1))))
        return at("out", mid + at("mlp.out", linear(hidden, block.mlp.fc2)))

    def final(self, model: optrode.Model) -> Tensor:
        return model.module(**self.inputs()).last_hidden_state

    def pooled(self, model: optrode.Model) -> Tensor:
        return model.module(**self.inputs()).pooler_output

    def test_the_ends_read(self, model: optrode.Model) -> None:
        acts = model.read(self.inputs(), ["embed", "layers.0.in", *self.ends])
        assert list(acts) == ["embed", "layers.0.in", *self.ends]
        assert bool((acts["embed"] == acts["layers.0.in"]).all())
        for name in self.ends:
            wanted = self.final(model) if name == "final" else self.pooled(model)
            assert bool((acts[name] == wanted).all()), name
            assert acts.axes[name] == model.table[name].port.axes


def gelu(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")
