"""Does training with SiLU and ending with ReLU beat ReLU from the start, for networks that are used with ReLU?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from ..engine.progress import Steps
from ..functions.methods.protocol import ActivationMethod, NamedFunction
from ..functions.methods.stochastic_activations import SiLUOrReLU, StochasticActivation
from ..functions.training.claims import better, table
from ..functions.training.networks import character_model
from ..functions.training.tasks import text
from ..functions.training.train import Trained, budget_of, train
from ..parts.study import Finding, Study

SPARSE = 0.5


@dataclass(frozen=True)
class SwitchedAfterwards(ActivationMethod):
    """SiLU throughout training, ReLU when it is measured."""

    title = "SiLU, then ReLU untrained"

    def module(self, width: int, *, axis: int = -1) -> nn.Module:
        return SiLUOrReLU(1.0)


def run(seeds: Sequence[int], full: bool, steps: Steps) -> list[Finding]:
    task = text()
    budget = budget_of(task, seeds=tuple(seeds), rates=(1e-3, 3e-3, 1e-2), steps=1000 if full else 150)
    methods: list[ActivationMethod] = [
        NamedFunction("relu"), NamedFunction("silu"), StochasticActivation(p=1.0, finish=0.1),
        StochasticActivation(p=0.7, finish=0.1), SwitchedAfterwards(),
    ]  # fmt: skip
    build = character_model(task.outputs, gated=True)
    found = {method.label: train(task, method, build, budget, steps=steps) for method in methods}
    ended, chance = found["Swi+FT 0.1"], found["StochA 0.7, finish 0.1"]
    return [
        better("SiLU that ends in ReLU has a lower loss than ReLU from the start", ended, found["relu"]),
        better("StochA that ends in ReLU has a lower loss than ReLU from the start", chance, found["relu"]),
        better("The last phase matters: without it the loss is higher", ended, found["SiLU, then ReLU untrained"]),
        better("SiLU has the lowest loss", found["silu"], ended, essential=False),
        sparse([ended, chance, found["relu"]]),
        table("Cross-entropy of all, nats a character", list(found.values())),
    ]


def sparse(trained: Sequence[Trained]) -> Finding:
    """Share of hidden activations that are zero after a short training; the paper's is for long ones."""
    shares = {one.label: one.health.get("sparsity", 0.0) for one in trained}
    return Finding(
        "More than half of the gates are zero after the switch (the paper: over 90 % after 47B tokens)", "SiLU: none",
        ", ".join(f"{name} {share:.0%}" for name, share in shares.items()),
        "reproduced" if shares[trained[0].label] > SPARSE else "not reproduced", False, {"sparsity": shares},
    )  # fmt: skip


STUDY = Study(
    id="stochastic-activations",
    title="SiLU in training, ReLU in use, in a gated character model",
    paper="2509.22358",
    shrunk="two layers of width 64, 150 steps, instead of 1.5B parameters on 47B tokens; speed and the diversity of "
    "sampled answers are left out",
    run=run,
    seeds=(0, 1, 2),
)
