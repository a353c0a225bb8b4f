"""The block of T5's encoder by hand, for the tests of the encoder alone and of the class that wraps it."""

from __future__ import annotations

from typing import Any, ClassVar

import torch.nn.functional as F
from checks import VOCABULARY, At, LayoutChecks, attention, linear, randomised, relative_error, rms_norm, split
from torch import Tensor, nn

import optrode

WIDTH, HIDDEN, HEADS, SIZE = 32, 40, 4, 6


class T5Checks(LayoutChecks):
    """Heads wider or narrower than the stream; scores are not scaled; the first block's position bias serves all."""

    width = WIDTH
    kind: ClassVar[str] = "gated-gelu"
    blocks: ClassVar[str] = "block"
    sizes: ClassVar = {
        **{f"attn.{name}": (HEADS, SIZE) for name in ("q", "k", "v", "heads")},
        **{f"mlp.{name}": (HIDDEN,) for name in ("gate", "up", "hidden")},
    }

    def network(self) -> nn.Module:
        network = randomised(self.made())
        self.__class__.first = network.get_submodule(self.blocks)[0]
        return network

    def config(self) -> Any:
        from transformers import T5Config

        shape = {"d_model": WIDTH, "d_kv": SIZE, "d_ff": HIDDEN, "num_heads": HEADS, "num_layers": 3}
        return T5Config(vocab_size=VOCABULARY, feed_forward_proj=self.kind, decoder_start_token_id=0, **shape)

    def made(self) -> nn.Module:
        raise NotImplementedError

    def block(self, block: Any, layer: int, config: Any, h: Tensor, at: At) -> Tensor:
        eps, attn = config.layer_norm_epsilon, block.layer[0].SelfAttention
        bias = self.first.layer[0].SelfAttention.compute_bias(h.shape[1], h.shape[1])
        h = at("in", h)
        x = at("attn.in", rms_norm(h, block.layer[0].layer_norm, eps))
        q = at("attn.q", split(linear(x, attn.q), HEADS))
        k = at("attn.k", split(linear(x, attn.k), HEADS))
        v = at("attn.v", split(linear(x, attn.v), HEADS))
        heads = at("attn.heads", attention(q, k, v, scale=1.0, bias=bias))
        mid = at("mid", h + at("attn.out", linear(heads.flatten(-2), attn.o)))
        x = at("mlp.in", rms_norm(mid, block.layer[1].layer_norm, eps))
        mlp = block.layer[1].DenseReluDense
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


class PlainT5Checks(T5Checks):
    """An MLP without a gate."""

    kind = "relu"
    sizes: ClassVar = {name: size for name, size in T5Checks.sizes.items() if name != "mlp.gate"}

    def hidden(self, mlp: Any, x: Tensor, at: At) -> Tensor:
        return F.relu(at("mlp.up", linear(x, mlp.wi)))
