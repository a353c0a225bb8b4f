"""Does a trained index of the unified tanh beat a tanh whose slope and scale are trained?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import nn

from ..engine.progress import Steps
from ..functions.methods.mittag_leffler import MittagLefflerModule, MittagLefflerUnit
from ..functions.methods.protocol import ActivationMethod, NamedFunction
from ..functions.of_formula import from_formula
from ..functions.training.claims import better, table
from ..functions.training.networks import mlp
from ..functions.training.tasks import digits
from ..functions.training.train import budget_of, train
from ..parts.study import Finding, Study


class SlopedTanh(ActivationMethod):
    """tanh(b x) with the slope trained: as many numbers as the unit has."""

    title = "tanh, slope trained"

    def module(self, width: int, *, axis: int = -1) -> nn.Module:
        return from_formula("tanh(b*x)", parameters={"b": 1.0}).module(axis=axis)


@dataclass(frozen=True)
class Watched(MittagLefflerUnit):
    """Remembers where b2 ended."""

    ended: list[float] = field(default_factory=list, compare=False)

    def after_training(self, network: nn.Module) -> None:
        self.ended.extend(
            float(part.b2.detach()) for part in network.modules() if isinstance(part, MittagLefflerModule)
        )


def run(seeds: Sequence[int], full: bool, steps: Steps) -> list[Finding]:
    task = digits()
    budget = budget_of(task, seeds=tuple(seeds), steps=600 if full else 120)
    own = Watched()
    methods: list[ActivationMethod] = [own, NamedFunction("tanh"), NamedFunction("identity"), SlopedTanh()]
    build = mlp(64, (32, 32), 10)
    unit, tanh, line, sloped = (train(task, method, build, budget, steps=steps) for method in methods)
    values = np.array(own.ended)
    return [
        better("The trained unit is more accurate than tanh with a trained slope", unit, sloped),
        better("The trained unit is more accurate than tanh", unit, tanh, essential=False),
        better("The trained unit is more accurate than no function at all", unit, line, essential=False),
        Finding(
            "The trained index leaves tanh (1) by more than 0.1 in most layers", "1 is tanh, 2 is a line",
            f"mean {values.mean():.3f}, from {values.min():.3f} to {values.max():.3f} in {len(values)} layers",
            "reproduced" if float((np.abs(values - 1) > 0.1).mean()) > 0.5 else "not reproduced", False,
            {"b2": [round(one, 4) for one in own.ended]},
        ),
        Finding(
            "It costs little more than the function it unifies", "tanh takes 1; a step at most twice as long",
            f"a step takes {unit.seconds / tanh.seconds:.1f} times as long",
            "reproduced" if unit.seconds < 2 * tanh.seconds else "not reproduced", False,
            {"seconds": {"unit": unit.seconds, "tanh": tanh.seconds}},
        ),
        table("Test accuracy of all", [unit, tanh, line, sloped]),
    ]  # fmt: skip


STUDY = Study(
    id="mittag-leffler",
    title="The unified representation with a trained index, on digits",
    paper="2302.11007",
    shrunk="two layers of 32 on 1797 digits, 120 steps, instead of LeNet, ShuffleNet and ResNet on MNIST and ImageNet",
    run=run,
    seeds=tuple(range(10)),
)
