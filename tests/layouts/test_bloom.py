from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from checks import VOCABULARY, At, LayoutChecks, attention, causal, layer_norm, linear, randomised
from torch import Tensor, nn

from optrode.layouts import find

WIDTH, HEADS, SIZE = 32, 4, 8


def made(**options: Any) -> nn.Module:
    from transformers import BloomConfig, BloomForCausalLM

    config = BloomConfig(vocab_size=VOCABULARY, hidden_size=WIDTH, n_layer=3, n_head=HEADS, **options)
    return randomised(BloomForCausalLM(config))


class TestBloom(LayoutChecks):
    """The modules of attention and MLP add the stream themselves; keys are biased by their position."""

    layout = "bloom"
    width = WIDTH
    sizes: ClassVar = {
        **{f"attn.{name}": (HEADS, SIZE) for name in ("q", "k", "v", "heads")},
        "mlp.up": (4 * WIDTH,),
        "mlp.hidden": (4 * WIDTH,),
    }

    def network(self) -> nn.Module:
        return made()

    def block(self, block: Any, layer: int, config: Any, h: Tensor, at: At) -> Tensor:
        eps = config.layer_norm_epsilon
        h = at("in", h)
        x = at("attn.in", layer_norm(h, block.input_layernorm, eps))
        fused = linear(x, block.self_attention.query_key_value).unflatten(-1, (HEADS, 3, SIZE))
        q, k, v = (at(f"attn.{name}", fused[..., index, :]) for index, name in enumerate("qkv"))
        slopes = 2.0 ** (-8 / HEADS * torch.arange(1, HEADS + 1))
        alibi = slopes[:, None, None] * torch.arange(h.shape[1])
        heads = at("attn.heads", attention(q, k, v, causal(h.shape[1]), bias=alibi))
        mid = at("mid", h + at("attn.out", linear(heads.flatten(-2), block.self_attention.dense)))
        x = at("mlp.in", layer_norm(mid, block.post_attention_layernorm, eps))
        hidden = at("mlp.hidden", F.gelu(at("mlp.up", linear(x, block.mlp.dense_h_to_4h)), approximate="tanh"))
        return at("out", mid + at("mlp.out", linear(hidden, block.mlp.dense_4h_to_h)))


@pytest.mark.parametrize("option", ["apply_residual_connection_post_layernorm", "slow_but_exact"])
def test_kinds_of_blocks_that_the_layout_does_not_describe_have_none(option: str) -> None:
    assert find(made(**{option: True})) is None
