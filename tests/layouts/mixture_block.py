"""A mixture of experts by hand, token by token and expert by expert, for the tests of layouts that have one."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from checks import At
from llama_block import HIDDEN, WIDTH, LlamaChecks
from torch import Tensor, nn

EXPERTS, TOP = 6, 2


class MixtureChecks(LlamaChecks):
    """The Llama block with a mixture of experts for its MLP; `choose` says how the router weighs and chooses."""

    hidden: ClassVar[int] = HIDDEN
    top: ClassVar[int] = TOP
    experts: ClassVar[int] = EXPERTS

    @classmethod
    def sizes_of(cls, experts: int = EXPERTS, top: int = TOP, hidden: int = HIDDEN) -> dict[str, tuple[int, ...]]:
        return LlamaChecks.sizes | {
            "mlp.router": (experts,),
            "mlp.weights": (top,),
            "mlp.chosen": (top,),
            "mlp.experts.hidden": (top, hidden),
            "mlp.experts.out": (top, WIDTH),
        }

    sizes: ClassVar = {}

    def __init_subclass__(cls) -> None:
        cls.sizes = cls.sizes_of(cls.experts, cls.top, cls.hidden) | cls.sizes

    # What the relatives do differently -----------------------------------------------------------------------------

    def router(self, module: Any) -> nn.Module:
        return module.gate

    def scores(self, x: Tensor, router: Any) -> Tensor:
        return x @ router.weight.T

    def choose(self, scores: Tensor, router: Any, config: Any) -> tuple[Tensor, Tensor]:
        """Weights and numbers of the chosen experts of one token, from its scores [expert]."""
        chance = scores.exp() / scores.exp().sum()
        chosen = chance.sort(descending=True).indices[: self.top]
        return chance[chosen] / chance[chosen].sum(), chosen

    def expert_hidden(self, experts: Any, number: int, x: Tensor) -> Tensor:
        """x is one token, [width]."""
        gate, up = (experts.gate_up_proj[number] @ x).chunk(2)
        return F.silu(gate) * up

    def expert_out(self, experts: Any, number: int, hidden: Tensor) -> Tensor:
        return experts.down_proj[number] @ hidden

    # The mixture ---------------------------------------------------------------------------------------------------

    def mlp_part(self, module: Any, x: Tensor, at: At) -> Tensor:
        if not hasattr(module, "experts"):
            return super().mlp_part(module, x, at)
        router, experts = self.router(module), module.experts
        scores = at("mlp.router", self.scores(x, router))
        pairs = [[self.choose(token, router, experts.config) for token in row] for row in scores]
        weights = at("mlp.weights", torch.stack([torch.stack([w for w, _ in row]) for row in pairs]))
        chosen = at("mlp.chosen", torch.stack([torch.stack([c for _, c in row]) for row in pairs]))
        hidden = at("mlp.experts.hidden", self.each(chosen, lambda r, t, k, e: self.expert_hidden(experts, e, x[r, t])))
        out = self.each(chosen, lambda r, t, k, e: self.expert_out(experts, e, hidden[r, t, k]))
        out = at("mlp.experts.out", out)
        total = torch.zeros_like(x)
        for rank in range(self.top):
            total = total + weights[:, :, rank, None] * out[:, :, rank]
        return total

    @staticmethod
    def each(chosen: Tensor, compute: Any) -> Tensor:
        rows, tokens, ranks = chosen.shape
        return torch.stack([
            torch.stack([
                torch.stack([compute(r, t, k, int(chosen[r, t, k])) for k in range(ranks)]) for t in range(tokens)
            ])
            for r in range(rows)
        ])  # fmt: skip

    def test_the_sum_of_experts_is_the_mlp(self, model: Any) -> None:
        acts = model.read(self.inputs(), [f"layers.1.mlp.{name}" for name in ("weights", "experts.out", "out")])
        total = (acts["layers.1.mlp.weights"][..., None] * acts["layers.1.mlp.experts.out"]).sum(-2)
        if "layers.1.mlp.shared.out" in model.table:
            total = total + model.read(self.inputs(), "layers.1.mlp.shared.out")["layers.1.mlp.shared.out"]
        torch.testing.assert_close(total, acts["layers.1.mlp.out"], rtol=1e-5, atol=1e-5)
