"""Is a function chosen for every neuron better than one drawn for it, and than one function for all?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import nn

from ..engine.progress import Steps
from ..functions.methods.protocol import NamedFunction
from ..functions.methods.smartmixed import POOL, SmartMixed, moved, shares
from ..functions.training.claims import better, table
from ..functions.training.networks import mlp
from ..functions.training.tasks import digits
from ..functions.training.train import budget_of, train
from ..parts.study import Finding, Study


@dataclass(frozen=True)
class Watched(SmartMixed):
    """Remembers how many neurons changed their choice, and what each layer chose."""

    changed: list[float] = field(default_factory=list, compare=False)
    chosen: list[list[dict[str, float]]] = field(default_factory=list, compare=False)

    def after_training(self, network: nn.Module) -> None:
        first = any(getattr(part, "groups", 0) is None for part in network.modules())
        super().after_training(network)
        if first:
            self.changed.append(moved(network))
            self.chosen.append(shares(network))


def run(seeds: Sequence[int], full: bool, steps: Steps) -> list[Finding]:
    task = digits()
    budget = budget_of(task, seeds=tuple(seeds), steps=1000 if full else 300)
    own = Watched()
    methods = [own, SmartMixed(first=0.25), SmartMixed(first=0.0), *(NamedFunction(name) for name in POOL)]
    build = mlp(64, (64, 64), 10)
    found = {method.label: train(task, method, build, budget, steps=steps) for method in methods}
    best = max((found[name] for name in POOL), key=lambda one: float(np.mean(one.scores)))
    chosen = found[own.label]
    return [
        better("Chosen functions are more accurate than randomly drawn ones", chosen, found["random choice"]),
        better(
            "Chosen functions are more accurate than the best single function of the pool", chosen, best,
            beside="that one is the best on the test part, which favours it",
        ),
        better("A first phase twice as long helps", found["SmartMixed, first 0.25"], chosen, essential=False),
        changed(own),
        table("Test accuracy of all", list(found.values())),
    ]  # fmt: skip


def changed(own: Watched) -> Finding:
    """Share of neurons whose choice training changed, over all runs, learning rates that were not chosen included."""
    layers = [np.mean([[row[name] for name in POOL] for row in runs], 0) for runs in zip(*own.chosen, strict=True)]
    said = "; ".join(
        f"layer {number}: " + ", ".join(f"{name} {share:.0%}" for name, share in zip(POOL, layer, strict=True))
        for number, layer in enumerate(layers)
    )
    share = float(np.mean(own.changed))
    return Finding(
        "Training changes the choice of most neurons", "random choices stay random", f"{share:.0%} changed; {said}",
        "reproduced" if share > 0.5 else "not reproduced", False, {"changed": own.changed},
    )  # fmt: skip


STUDY = Study(
    id="smartmixed",
    title="A function for every neuron: chosen, drawn, or one for all",
    paper="2510.22450",
    shrunk="two layers of 64 on 1797 digits, 300 steps (the first eighth choosing), instead of MNIST for 400 epochs",
    run=run,
    seeds=tuple(range(10)),
)
