from __future__ import annotations

from typing import Any, ClassVar

import torch.nn.functional as F
from checks import VOCABULARY, At, LayoutChecks, attention, causal, layer_norm, linear, randomised, rotated
from torch import Tensor, nn

import optrode

WIDTH, HIDDEN, HEADS, SIZE = 32, 40, 4, 8


class TestGPTNeoX(LayoutChecks):
    """Attention and MLP side by side; a part of each head is rotated."""

    layout = "gpt_neox"
    width = WIDTH
    parallel: ClassVar[bool] = True
    equations = 1
    # Exchanging two summands of the same sum would not be noticed.
    swapped = ("attn.in", "mlp.out")
    sizes: ClassVar = {
        **{f"attn.{name}": (HEADS, SIZE) for name in ("q", "k", "v", "heads")},
        "mlp.up": (HIDDEN,),
        "mlp.hidden": (HIDDEN,),
    }

    def network(self) -> nn.Module:
        from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

        shape = {"hidden_size": WIDTH, "intermediate_size": HIDDEN, "num_attention_heads": HEADS}
        rope = {"rope_type": "default", "rope_theta": 1000.0, "partial_rotary_factor": 0.5}
        config = GPTNeoXConfig(
            vocab_size=VOCABULARY,
            num_hidden_layers=3,
            use_parallel_residual=self.parallel,
            rope_parameters=rope,
            **shape,
        )
        return randomised(GPTNeoXForCausalLM(config))

    def block(self, block: Any, layer: int, config: Any, h: Tensor, at: At) -> Tensor:
        h = at("in", h)
        part = at("attn.out", self.attention_part(block, config, h, at))
        if self.parallel:
            return at("out", h + part + at("mlp.out", self.mlp_part(block, config, h, at)))
        mid = at("mid", h + part)
        return at("out", mid + at("mlp.out", self.mlp_part(block, config, mid, at)))

    def attention_part(self, block: Any, config: Any, h: Tensor, at: At) -> Tensor:
        x = at("attn.in", layer_norm(h, block.input_layernorm, config.layer_norm_eps))
        fused = linear(x, block.attention.query_key_value).unflatten(-1, (HEADS, 3, SIZE))
        q, k, v = (at(f"attn.{name}", fused[..., index, :]) for index, name in enumerate("qkv"))
        q, k = rotated(q, 1000.0, SIZE // 2), rotated(k, 1000.0, SIZE // 2)
        heads = at("attn.heads", attention(q, k, v, causal(h.shape[1])))
        return linear(heads.flatten(-2), block.attention.dense)

    def mlp_part(self, block: Any, config: Any, h: Tensor, at: At) -> Tensor:
        x = at("mlp.in", layer_norm(h, block.post_attention_layernorm, config.layer_norm_eps))
        hidden = at("mlp.hidden", F.gelu(at("mlp.up", linear(x, block.mlp.dense_h_to_4h))))
        return linear(hidden, block.mlp.dense_4h_to_h)

    def test_a_parallel_block_has_no_mid(self, model: optrode.Model) -> None:
        assert ("layers.1.mid" in model.table) is not self.parallel


class TestGPTNeoXSequential(TestGPTNeoX):
    parallel = False
    equations = 2
    swapped = ("attn.out", "mlp.out")
