"""Does an adaptive gate help on long-tailed data, or does a bias in front of the sigmoid do as much?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..engine.progress import Steps
from ..functions.methods.apa import APA
from ..functions.methods.protocol import ActivationMethod, NamedFunction
from ..functions.of_formula import from_formula
from ..functions.training.claims import better, table
from ..functions.training.networks import Factory, seeded
from ..functions.training.tasks import Part, Split, Task, digits
from ..functions.training.train import budget_of, train
from ..parts.study import Finding, Study

LARGEST, IMBALANCE, WIDTH = 100, 0.03, 32


class BiasedSigmoid(ActivationMethod):
    """sigmoid(z + b) with b trained from 0."""

    title = "sigmoid with bias"

    def module(self, width: int, *, axis: int = -1) -> nn.Module:
        return from_formula("sigmoid(x+b)", parameters={"b": 0.0}).module(axis=axis)


class SqueezeExcite(nn.Module):
    """Channels times a gate that sees their means: norm, two linear layers, dropout, the gate."""

    def __init__(self, width: int, activation: Factory):
        super().__init__()
        parts = [nn.LayerNorm(width), nn.Linear(width, width // 4), nn.ReLU(), nn.Linear(width // 4, width)]
        self.excite = nn.Sequential(*parts, nn.Dropout(0.1), activation(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.excite(x.mean((2, 3)))[..., None, None]


def build(activation: Factory, seed: int) -> nn.Module:
    """Three convolutions, a gate behind the last two."""
    return seeded(
        nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, WIDTH, 3, 2, padding=1), nn.ReLU(),
            SqueezeExcite(WIDTH, activation), nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.ReLU(),
            SqueezeExcite(WIDTH, activation), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTH, 10),
        ),
        seed,
    )  # fmt: skip


def long_tailed() -> Task:
    """Digits of which class c keeps 100 x 0.03^(c/9) examples to fit on; accuracy is the mean over classes."""
    task = digits(picture=True)

    def split(seed: int) -> Split:
        whole = task.split(seed)
        kept = [
            (whole.fit.targets == c).nonzero().flatten()[: round(LARGEST * IMBALANCE ** (c / 9))] for c in range(10)
        ]
        return Split(whole.fit.pick(torch.cat(kept)), whole.tune, whole.test)

    return replace(task, name="long-tailed digits", split=split, score=balanced)


def balanced(outputs: Tensor, targets: Tensor) -> float:
    """Mean over classes of the share that is right."""
    part = Part(outputs.argmax(-1), targets)
    right = [(part.inputs[targets == c] == c).float().mean() for c in targets.unique()]
    return float(torch.stack(right).mean())


def run(seeds: Sequence[int], full: bool, steps: Steps) -> list[Finding]:
    task = long_tailed()
    budget = budget_of(task, seeds=tuple(seeds), steps=800 if full else 200)
    methods: list[ActivationMethod] = [
        APA("gate"), APA("gate", gradient="truncated"), NamedFunction("sigmoid"), BiasedSigmoid(),
    ]  # fmt: skip
    gates = [train(task, method, build, budget, steps=steps) for method in methods]
    own, truncated, sigmoid, biased = gates
    return [
        better("An APA gate has a higher balanced accuracy than a sigmoid gate", own, sigmoid),
        better("An APA gate is better than a sigmoid gate with a trained bias, which could explain it", own, biased),
        better("The true gradient by lambda is better than the truncated one", own, truncated, essential=False),
        table("Balanced accuracy of all", gates),
    ]


STUDY = Study(
    id="apa",
    title="APA in squeeze-and-excitation gates, on digits made long-tailed",
    paper="2407.08567",
    shrunk="three convolutions with two gates on at most 100 digits a class, 200 steps, instead of ImageNet-LT and "
    "iNaturalist; the hidden-layer form is not compared",
    run=run,
    seeds=tuple(range(10)),
)
