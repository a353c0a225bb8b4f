from __future__ import annotations

from typing import Any, ClassVar

from checks import rms_norm
from llama_block import SIZE
from mixture_block import EXPERTS, TOP, MixtureChecks
from torch import Tensor, nn

import optrode
from optrode.engine.mapping.equations import measure

OPTIONS = {"head_dim": SIZE, "num_experts": EXPERTS, "num_experts_per_tok": TOP, "moe_intermediate_size": 24}


class TestQwen3Moe(MixtureChecks):
    """The first layer has a plain MLP, and the weights of the chosen experts do not sum to 1."""

    layout = "qwen3_moe"
    model_type = "qwen3_moe"
    hidden = 24
    options: ClassVar = {**OPTIONS, "mlp_only_layers": [0], "norm_topk_prob": False}

    def head_norm(self, x: Tensor, module: nn.Module, config: Any) -> Tensor:
        return rms_norm(x, module, config.rms_norm_eps)

    def choose(self, scores: Tensor, router: Any, config: Any) -> tuple[Tensor, Tensor]:
        chance = scores.softmax(-1)
        chosen = chance.sort(descending=True).indices[: self.top]
        return chance[chosen], chosen

    def test_the_equations_hold(self, model: optrode.Model) -> None:
        checks = measure(model, self.inputs())
        assert [check.layer for check in checks].count(0) == 2 and len(checks) == 2 + 3 + 3
        assert all(check.error < 1e-5 for check in checks)

    def test_a_plain_layer_has_a_plain_mlp_and_no_experts(self, model: optrode.Model) -> None:
        assert "layers.0.mlp.hidden" in model.table and "layers.0.mlp.router" not in model.table
        assert "layers.1.mlp.hidden" not in model.table and "layers.1.mlp.experts.hidden" in model.table


class TestQwen3MoeWithWeightsThatSumToOne(MixtureChecks):
    layout = "qwen3_moe"
    model_type = "qwen3_moe"
    hidden = 24
    equations = 3
    options: ClassVar = {**OPTIONS, "norm_topk_prob": True}

    def head_norm(self, x: Tensor, module: nn.Module, config: Any) -> Tensor:
        return rms_norm(x, module, config.rms_norm_eps)
