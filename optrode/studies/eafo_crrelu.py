"""Does CRReLU's correction lower entropy, does training it help, and does it move from where it starts?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from ..engine.progress import Steps
from ..functions.methods.eafo_crrelu import CRReLU
from ..functions.methods.protocol import NamedFunction
from ..functions.training.claims import better, table
from ..functions.training.networks import character_model, convolutional
from ..functions.training.tasks import digits, text
from ..functions.training.train import budget_of, train
from ..functions.zoo import get
from ..parts.study import Finding, Study

OTHERS = ("relu", "gelu", "silu", "prelu")
COSMETIC = 0.02


@dataclass(frozen=True)
class Watched(CRReLU):
    """Remembers where eps ended."""

    ended: list[float] = field(default_factory=list, compare=False)

    def after_training(self, network: nn.Module) -> None:
        self.ended.extend(float(parameter.detach()) for parameter in self.without_decay(network))


def run(seeds: Sequence[int], full: bool, steps: Steps) -> list[Finding]:
    steps.at("entropy")
    findings = [lower_entropy()]
    own = Watched()
    methods = [own, CRReLU(trainable=False), *(NamedFunction(name) for name in OTHERS)]
    words, pictures = text(), digits(picture=True)
    budget = budget_of(words, seeds=tuple(seeds), rates=(1e-3, 3e-3, 1e-2), steps=1000 if full else 130)
    build = character_model(words.outputs)
    read = {one.label: train(words, one, build, budget, steps=steps) for one in methods}
    budget = budget_of(pictures, seeds=tuple(seeds), steps=800 if full else 150)
    seen = {one.label: train(pictures, one, convolutional(), budget, steps=steps) for one in methods}
    return [
        *findings,
        better("A character model has a lower loss with CRReLU than with ReLU", read["CRReLU"], read["relu"]),
        better(
            "It has a lower loss with CRReLU than with GELU",
            read["CRReLU"],
            read["gelu"],
            essential=False,
        ),
        better("Training eps is better than leaving it", read["CRReLU"], read["CRReLU frozen"], essential=False),
        better("Digits are read better with CRReLU than with ReLU", seen["CRReLU"], seen["relu"], essential=False),
        more_than_cosmetic(own.ended),
        table("Cross-entropy of the character model", list(read.values())),
        table("Accuracy on digits", list(seen.values())),
    ]


def lower_entropy() -> Finding:
    """What eps does to the entropy of outputs on the linear half, x > 0, for normal inputs: the mean of ln f'."""
    change = {eps: _entropy_change(eps) for eps in (0.1, -0.1)}
    return Finding(
        "For x > 0 and normal inputs, eps > 0 lowers the entropy of the outputs",
        "eps 0: ReLU",
        f"eps 0.1 changes it by {change[0.1]:+.4f} nats, eps -0.1 by {change[-0.1]:+.4f} (exact): the descent that the "
        "recipe gives moves the inverse function, so that the function itself moves the other way",
        "reproduced" if change[0.1] < 0 else "not reproduced",
        False,
        {str(eps): value for eps, value in change.items()},
    )


def _entropy_change(eps: float) -> float:
    """Mean of ln f'(x) over the positive half of N(0, 1), by Gauss-Legendre quadrature on [0, 12]."""
    nodes, weights = np.polynomial.legendre.leggauss(400)
    x, w = 6 * (nodes + 1), 6 * weights
    density = 2 * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    slope = get("crrelu").derivative(torch.from_numpy(x), e=eps).numpy()
    return float((w * density * np.log(slope)).sum())


def more_than_cosmetic(ended: Sequence[float]) -> Finding:
    sizes = np.abs(ended)
    share = float((sizes > COSMETIC).mean())
    return Finding(
        "Trained eps leaves the region where its effect is cosmetic",
        f"most layers end above |eps| = {COSMETIC:g} (start 0.01)",
        f"{share:.0%} of {len(sizes)} layers of all runs do; median |eps| {np.median(sizes):.3f}, "
        f"largest {sizes.max():.3f}",
        "reproduced" if share > 0.5 else "not reproduced", False, {"eps": [round(one, 4) for one in ended]},
    )  # fmt: skip


STUDY = Study(
    id="eafo-crrelu",
    title="CRReLU: entropy, loss, and how far its eps goes",
    paper="2405.12954",
    shrunk="a character model of two layers (130 steps) and three convolutions on digits (150 steps) instead of vision "
    "transformers on CIFAR and ImageNet and GPT-2",
    run=run,
    seeds=(0, 1, 2),
)
