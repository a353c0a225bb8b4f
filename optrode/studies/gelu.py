"""Does GELU beat ReLU and ELU in a deep small network, and does its random map alone regularise as dropout does?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from ..engine.progress import Steps
from ..functions.methods.gelu import GELU
from ..functions.methods.protocol import NamedFunction
from ..functions.training.claims import better, table
from ..functions.training.networks import mlp
from ..functions.training.tasks import digits
from ..functions.training.train import budget_of, train
from ..parts.study import Finding, Study

LAYERS, WIDTH = 8, 128


@dataclass(frozen=True)
class Dropped(NamedFunction):
    """ReLU with dropout behind it."""

    share: float = 0.5

    @property
    def label(self) -> str:
        return f"relu, dropout {self.share:g}"

    def module(self, width: int, *, axis: int = -1) -> nn.Module:
        return nn.Sequential(super().module(width, axis=axis), nn.Dropout(self.share))


def run(seeds: Sequence[int], full: bool, steps: Steps) -> list[Finding]:
    task = digits()
    build = mlp(64, (WIDTH,) * LAYERS, 10)
    budget = budget_of(task, seeds=tuple(seeds), rates=(1e-3, 3e-4, 1e-4), steps=1500 if full else 250, batch=128)
    names = ("relu", "elu", "silu")
    methods = [GELU(), *(NamedFunction(name) for name in names), GELU(form="stochastic"), Dropped()]
    found = {method.label: train(task, method, build, budget, steps=steps) for method in methods}
    gelu = found["GELU"]
    return [
        better("GELU is more accurate than ReLU", gelu, found["relu"]),
        better("GELU is more accurate than ELU", gelu, found["elu"]),
        better("GELU is more accurate than SiLU", gelu, found["silu"], essential=False),
        better(
            "The random identity map alone does better than ReLU with dropout", found["GELU (stochastic)"],
            found["relu, dropout 0.5"], essential=False,
        ),
        table("Test accuracy of all", list(found.values())),
    ]  # fmt: skip


STUDY = Study(
    id="gelu",
    title="GELU against ReLU and ELU: digits, eight layers of 128",
    paper="1606.08415",
    shrunk="1797 digits instead of MNIST, CIFAR and TIMIT; 250 steps; the paper's rates 1e-3, 3e-4 and 1e-4",
    run=run,
    seeds=tuple(range(10)),
)
