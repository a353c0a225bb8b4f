from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from checks import (
    VOCABULARY,
    At,
    LayoutChecks,
    attention,
    linear,
    randomised,
    relative_error,
    rms_norm,
    split,
    token_ids,
)
from torch import Tensor, nn

import optrode

WIDTH, HIDDEN, HEADS, SIZE, SEEN = 32, 40, 4, 6, 7


class TestT5Decoder(LayoutChecks):
    """Causal attention with a position bias, then attention to an encoder's output without one, then the MLP."""

    layout = "t5_decoder"
    width = WIDTH
    equations = 3
    kind: ClassVar[str] = "gated-gelu"
    sizes: ClassVar = {
        **{f"attn.{name}": (HEADS, SIZE) for name in ("q", "k", "v", "heads")},
        **{f"mlp.{name}": (HIDDEN,) for name in ("gate", "up", "hidden")},
        "cross.heads": (HEADS, SIZE),
    }

    def network(self) -> nn.Module:
        from transformers import T5Config, T5ForConditionalGeneration

        shape = {"d_model": WIDTH, "d_kv": SIZE, "d_ff": HIDDEN, "num_heads": HEADS, "num_layers": 3}
        config = T5Config(vocab_size=VOCABULARY, feed_forward_proj=self.kind, decoder_start_token_id=0, **shape)
        network = randomised(T5ForConditionalGeneration(config).get_decoder())
        self.__class__.first = network.block[0]
        return network

    def inputs(self) -> dict[str, Tensor]:
        encoded = torch.randn(2, SEEN, WIDTH, generator=torch.Generator().manual_seed(3))
        given = token_ids()
        return {**given, "encoder_hidden_states": encoded[:1].expand(len(next(iter(given.values()))), -1, -1)}

    def example(self) -> dict[str, Tensor]:
        return self.inputs()

    def block(self, block: Any, layer: int, config: Any, h: Tensor, at: At) -> Tensor:
        eps, attn, cross = config.layer_norm_epsilon, block.layer[0].SelfAttention, block.layer[1].EncDecAttention
        count = h.shape[1]
        bias = self.first.layer[0].SelfAttention.compute_bias(count, count)
        earlier = torch.ones(count, count, dtype=torch.bool).tril()
        h = at("in", h)
        x = at("attn.in", rms_norm(h, block.layer[0].layer_norm, eps))
        q = at("attn.q", split(linear(x, attn.q), HEADS))
        k = at("attn.k", split(linear(x, attn.k), HEADS))
        v = at("attn.v", split(linear(x, attn.v), HEADS))
        heads = at("attn.heads", attention(q, k, v, earlier, scale=1.0, bias=bias))
        seen = at("seen", h + at("attn.out", linear(heads.flatten(-2), attn.o)))
        x = at("cross.in", rms_norm(seen, block.layer[1].layer_norm, eps))
        encoded = self.inputs()["encoder_hidden_states"].to(h.dtype)
        weights = torch.einsum(
            "bqhd,bkhd->bhqk", split(linear(x, cross.q), HEADS), split(linear(encoded, cross.k), HEADS)
        )
        brought = torch.einsum("bhqk,bkhd->bqhd", weights.softmax(-1), split(linear(encoded, cross.v), HEADS))
        mid = at("mid", seen + at("cross.out", linear(at("cross.heads", brought).flatten(-2), cross.o)))
        x = at("mlp.in", rms_norm(mid, block.layer[2].layer_norm, eps))
        mlp = block.layer[2].DenseReluDense
        return at("out", mid + at("mlp.out", linear(at("mlp.hidden", self.hidden(mlp, x, at)), mlp.wo)))

    def hidden(self, mlp: Any, x: Tensor, at: At) -> Tensor:
        gate, up = at("mlp.gate", linear(x, mlp.wi_0)), at("mlp.up", linear(x, mlp.wi_1))
        return F.gelu(gate, approximate="tanh") * up

    def final(self, model: optrode.Model) -> Tensor:
        return model.module(**self.inputs()).last_hidden_state

    def test_the_ends_read(self, model: optrode.Model) -> None:
        acts = model.read(self.inputs(), ["embed", "layers.0.in", "final"])
        assert relative_error(acts["embed"], acts["layers.0.in"]) == 0
        assert relative_error(acts["final"], self.final(model)) < 1e-5


class TestT5DecoderPlain(TestT5Decoder):
    kind = "relu"
    sizes: ClassVar = {name: size for name, size in TestT5Decoder.sizes.items() if name != "mlp.gate"}

    def hidden(self, mlp: Any, x: Tensor, at: At) -> Tensor:
        return at("mlp.up", linear(x, mlp.wi)).relu()
