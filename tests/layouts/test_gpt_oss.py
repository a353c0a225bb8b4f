from __future__ import annotations

from typing import Any, ClassVar

import torch
from checks import RUNNING, At, causal
from llama_block import HEADS, KEY_HEADS, SIZE
from mixture_block import EXPERTS, TOP, MixtureChecks
from torch import Tensor, nn


class TestGptOss(MixtureChecks):
    """Sinks and windows in attention; experts with biases, whose gate and other factor lie side by side, clamped."""

    layout = "gpt_oss"
    model_type = "gpt_oss"
    equations = 3
    options: ClassVar = {
        "head_dim": SIZE,
        "num_local_experts": EXPERTS,
        "num_experts_per_tok": TOP,
        "sliding_window": 3,
        "attention_bias": True,
        # Low, so that both clamps cut.
        "swiglu_limit": 0.5,
        "swiglu_alpha": 1.3,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0},
    }

    def attention_part(self, module: Any, layer: int, config: Any, x: Tensor, at: At) -> Tensor:
        self.sinks = module.sinks
        return super().attention_part(module, layer, config, x, at)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: int, config: Any) -> Tensor:
        """A sink is a key that is always seen and has no value."""
        at = RUNNING.get()
        q, k = at("attn.q_rotated", q), at("attn.k_rotated", k)
        k, v = (x.repeat_interleave(HEADS // KEY_HEADS, 2) for x in (k, v))
        window = config.sliding_window if config.layer_types[layer] == "sliding_attention" else None
        scores = torch.einsum("rqhf,rkhf->rhqk", q, k) * SIZE**-0.5
        hidden = ~causal(q.shape[1], window)
        scores = at("attn.scores", scores.masked_fill(hidden, -torch.inf).transpose(1, 2)).transpose(1, 2)
        size = scores.masked_fill(hidden, -torch.inf).exp()
        pattern = size / (size.sum(-1, keepdim=True) + self.sinks.exp()[None, :, None, None])
        pattern = at("attn.pattern", pattern.transpose(1, 2)).transpose(1, 2).masked_fill(hidden, 0.0)
        return torch.einsum("rhqk,rkhf->rqhf", pattern, v)

    def router(self, module: Any) -> nn.Module:
        return module.router

    def scores(self, x: Tensor, router: Any) -> Tensor:
        return x @ router.weight.T + router.bias

    def choose(self, scores: Tensor, router: Any, config: Any) -> tuple[Tensor, Tensor]:
        chosen = scores.sort(descending=True).indices[: self.top]
        return scores[chosen].exp() / scores[chosen].exp().sum(), chosen

    def expert_hidden(self, experts: Any, number: int, x: Tensor) -> Tensor:
        both = x @ experts.gate_up_proj[number] + experts.gate_up_proj_bias[number]
        gate, up = both[0::2].clamp(max=0.5), both[1::2].clamp(min=-0.5, max=0.5)
        return (up + 1) * gate / (1 + (-1.3 * gate).exp())

    def expert_out(self, experts: Any, number: int, hidden: Tensor) -> Tensor:
        return hidden @ experts.down_proj[number] + experts.down_proj_bias[number]

    def test_both_clamps_cut(self, model: Any) -> None:
        """Otherwise the block above would say nothing about them."""
        x = model.read(self.inputs(), "layers.1.mlp.in")["layers.1.mlp.in"]
        experts = model.blocks[1].mlp.experts
        both = x @ experts.gate_up_proj[3] + experts.gate_up_proj_bias[3]
        assert bool((both[..., 0::2] > 0.5).any()) and bool((both[..., 1::2].abs() > 0.5).any())
