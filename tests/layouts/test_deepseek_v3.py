from __future__ import annotations

from typing import Any, ClassVar

import torch
from checks import At, attention, causal, linear, rms_norm, split
from llama_block import HEADS, LlamaChecks
from mixture_block import MixtureChecks
from torch import Tensor

import optrode
from optrode.engine.mapping.equations import measure

NOPE, ROPE, VALUE, LATENT, SHARED = 6, 4, 8, 16, 48
OPTIONS = {
    "num_key_value_heads": HEADS,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "n_group": 4,
    "topk_group": 2,
    "moe_intermediate_size": 24,
    "n_shared_experts": 2,
    "first_k_dense_replace": 1,
    "routed_scaling_factor": 1.7,
    "kv_lora_rank": LATENT,
    "qk_rope_head_dim": ROPE,
    "qk_nope_head_dim": NOPE,
    "v_head_dim": VALUE,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0},
}


class TestDeepseekV3(MixtureChecks):
    """Latent attention, a plain first layer, groups of experts of which some are left out, and shared experts."""

    layout = "deepseek_v3"
    model_type = "deepseek_v3"
    hidden, top, experts = 24, 3, 8
    options: ClassVar = {**OPTIONS, "q_lora_rank": 12}
    sizes: ClassVar = {
        "attn.q": (HEADS, NOPE + ROPE),
        "attn.k": (HEADS, NOPE + ROPE),
        "attn.latent": (LATENT,),
        "attn.heads": (HEADS, VALUE),
        **{f"mlp.shared.{name}": (SHARED,) for name in ("gate", "up", "hidden")},
    }

    def network(self) -> Any:
        network = super().network()
        for block in network.model.layers[1:]:
            block.mlp.gate.e_score_correction_bias.copy_(torch.linspace(-0.4, 0.4, 8))
        return network

    def queries(self, module: Any, x: Tensor) -> Tensor:
        return linear(rms_norm(linear(x, module.q_a_proj), module.q_a_layernorm, 1e-6), module.q_b_proj)

    def attention_part(self, module: Any, layer: int, config: Any, x: Tensor, at: At) -> Tensor:
        q = at("attn.q", split(self.queries(module, x), HEADS))
        latent, turned_key = linear(x, module.kv_a_proj_with_mqa).split([LATENT, ROPE], -1)
        latent = at("attn.latent", rms_norm(latent, module.kv_a_layernorm, 1e-6))
        k, v = split(linear(latent, module.kv_b_proj), HEADS).split([NOPE, VALUE], -1)
        q = torch.cat([q[..., :NOPE], self.pairs_turned(q[..., NOPE:])], -1)
        shared = self.pairs_turned(turned_key[:, :, None]).expand(-1, -1, HEADS, -1)
        heads = attention(q, torch.cat([k, shared], -1), v, causal(x.shape[1]))
        return linear(at("attn.heads", heads).flatten(-2), module.o_proj)

    @staticmethod
    def pairs_turned(x: Tensor) -> Tensor:
        """Features 2 i and 2 i + 1 are real and imaginary part of a number that turns; real parts come out first."""
        angle = torch.arange(x.shape[1])[:, None] * 1000.0 ** (-torch.arange(0, ROPE, 2) / ROPE)
        turned = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous()) * torch.exp(1j * angle)[:, None]
        return torch.cat([turned.real, turned.imag], -1)

    def choose(self, scores: Tensor, router: Any, config: Any) -> tuple[Tensor, Tensor]:
        """The bias counts for the choice only: two of four groups by their best two experts, then three experts."""
        chance = 1 / (1 + (-scores).exp())
        biased = chance + router.e_score_correction_bias
        groups = biased.unflatten(0, (4, 2)).sum(-1).sort(descending=True).indices[:2].tolist()
        allowed = [expert for expert in range(8) if expert // 2 in groups]
        best = sorted(allowed, key=lambda expert: -float(biased[expert]))[:3]
        # The network takes the best in no order; the order that its routine leaves them in is the order of ranks.
        limits = torch.tensor([float(biased[expert]) if expert in allowed else -torch.inf for expert in range(8)])
        chosen = limits.topk(3, sorted=False).indices
        assert set(chosen.tolist()) == set(best)
        return 1.7 * chance[chosen] / chance[chosen].sum(), chosen

    def mlp_part(self, module: Any, x: Tensor, at: At) -> Tensor:
        routed = super().mlp_part(module, x, at)
        if not hasattr(module, "experts"):
            return routed
        shared = LlamaChecks.mlp_part(
            self, module.shared_experts, x, lambda name, value: at(name.replace("mlp.", "mlp.shared."), value)
        )
        return routed + at("mlp.shared.out", shared)

    def test_the_equations_hold(self, model: optrode.Model) -> None:
        checks = measure(model, self.inputs())
        assert len(checks) == 2 + 3 + 3 and all(check.error < 1e-5 for check in checks)

    def test_the_first_layer_has_no_experts(self, model: optrode.Model) -> None:
        assert "layers.0.mlp.hidden" in model.table and "layers.0.mlp.experts.out" not in model.table
        assert "layers.1.mlp.shared.out" in model.table and "layers.1.mlp.hidden" not in model.table

    def test_groups_and_bias_matter_here(self, model: optrode.Model) -> None:
        """Otherwise the choice above would prove nothing about them."""
        acts = model.read(self.inputs(), ["layers.1.mlp.router", "layers.1.mlp.chosen"])
        plain = acts["layers.1.mlp.router"].topk(3).indices.sort().values
        assert not torch.equal(plain, acts["layers.1.mlp.chosen"].sort().values)


class TestDeepseekV3WithFullQueries(TestDeepseekV3):
    options: ClassVar = {**OPTIONS, "q_lora_rank": None}

    def queries(self, module: Any, x: Tensor) -> Tensor:
        return linear(x, module.q_proj)
