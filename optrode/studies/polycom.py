"""Do compositions of polynomials beat a gated feed-forward of the same size, and is it more than their norm?"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ..engine.progress import Steps
from ..functions.methods.polycom import PolyCom
from ..functions.methods.protocol import ActivationMethod, NamedFunction
from ..functions.training.claims import better, table
from ..functions.training.networks import character_model
from ..functions.training.tasks import text
from ..functions.training.train import budget_of, train
from ..parts.study import Finding, Study


class NormedGELU(ActivationMethod):
    """GELU, then the norm that PolyNorm has."""

    title = "GELU + norm"

    def module(self, width: int, *, axis: int = -1) -> nn.Module:
        return nn.Sequential(nn.GELU(), nn.RMSNorm(width, eps=1e-6, elementwise_affine=False))


class Gated(NamedFunction):
    """SiLU in a gated feed-forward."""

    @property
    def label(self) -> str:
        return "SwiGLU"


def run(seeds: Sequence[int], full: bool, steps: Steps) -> list[Finding]:
    task = text()
    budget = budget_of(task, seeds=tuple(seeds), rates=(1e-3, 3e-3, 1e-2), steps=1000 if full else 150, clip=1.0)
    plain, gated = character_model(task.outputs), character_model(task.outputs, gated=True)
    methods: list[ActivationMethod] = [
        PolyCom(), PolyCom("relu"), NamedFunction("gelu"), NamedFunction("squared relu"), NormedGELU(), Gated("silu"),
    ]  # fmt: skip
    found = {
        method.label: train(task, method, gated if isinstance(method, Gated) else plain, budget, steps=steps)
        for method in methods
    }
    norm, relu = found["PolyNorm"], found["PolyReLU"]
    return [
        better("PolyNorm has a lower loss than SwiGLU with as many weights", norm, found["SwiGLU"]),
        better(
            "PolyNorm has a lower loss than GELU followed by the same norm",
            norm,
            found["GELU + norm"],
        ),
        better("PolyNorm has a lower loss than PolyReLU", norm, relu, essential=False),
        better("PolyReLU has a lower loss than GELU", relu, found["gelu"], essential=False),
        better("PolyReLU has a lower loss than squared ReLU", relu, found["squared relu"], essential=False),
        table("Cross-entropy of all, nats a character", list(found.values())),
    ]


STUDY = Study(
    id="polycom",
    title="PolyNorm and PolyReLU against SwiGLU in a character model",
    paper="2411.03884",
    shrunk="two layers of width 64 on 200,000 characters, 150 steps, instead of 1B parameters on 250B tokens",
    run=run,
    seeds=(0, 1, 2),
)
