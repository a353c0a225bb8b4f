"""Does GoLU lower the variance of its outputs, and does it lower the loss?"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..engine.progress import Steps
from ..functions.methods.golu import GoLU
from ..functions.methods.protocol import NamedFunction
from ..functions.profiling import profile
from ..functions.training.claims import better, table
from ..functions.training.networks import character_model, convolutional
from ..functions.training.tasks import digits, text
from ..functions.training.train import budget_of, train
from ..functions.zoo import get
from ..parts.statistics import interval_over_seeds
from ..parts.study import Finding, Study, above

OTHERS = ("gelu", "silu", "relu")
WIDTH = 512


def run(seeds: Sequence[int], full: bool, steps: Steps) -> list[Finding]:
    steps.at("variance of one layer")
    findings = [variance(seeds)]
    methods = [GoLU(), *(NamedFunction(name) for name in OTHERS)]
    words = text()
    budget = budget_of(words, seeds=tuple(seeds), rates=(1e-3, 3e-3, 1e-2), steps=1000 if full else 150)
    read = {one.label: train(words, one, character_model(words.outputs), budget, steps=steps) for one in methods}
    pictures = digits(picture=True)
    budget = budget_of(pictures, seeds=tuple(seeds), steps=800 if full else 200)
    seen = {one.label: train(pictures, one, convolutional(), budget, steps=steps) for one in methods}
    return [
        *findings,
        better("A character model has a lower loss with GoLU than with GELU", read["GoLU"], read["gelu"]),
        better("It has a lower loss with GoLU than with SiLU", read["GoLU"], read["silu"], essential=False),
        better("Digits are read better with GoLU than with GELU", seen["GoLU"], seen["gelu"], essential=False),
        better("Digits are read better with GoLU than with ReLU", seen["GoLU"], seen["relu"], essential=False),
        table("Cross-entropy of the character model", list(read.values())),
        table("Accuracy on digits", list(seen.values())),
    ]


def variance(seeds: Sequence[int]) -> Finding:
    """The variance of outputs of one random layer under normal inputs, beside the exact value for N(0, 1)."""
    exact = {name: _exact(name) for name in ("golu", *OTHERS)}
    lowest = min(OTHERS, key=lambda name: exact[name])
    gaps = [_layer(lowest, seed) - _layer("golu", seed) for seed in seeds]
    found = interval_over_seeds(gaps)
    shown = ", ".join(f"{name} {value:.4f}" for name, value in exact.items())
    return Finding(
        "The variance of outputs under normal inputs is the lowest with GoLU",
        f"exact values: {shown}",
        f"one layer of {WIDTH}: {lowest} has {found} more",
        above(found, 0.0),
        numbers={"exact": exact, "gap": found.as_dict()},
    )


def _exact(name: str) -> float:
    found = profile(name)
    return found.square - found.mean**2


def _layer(name: str, seed: int) -> float:
    """Variance over examples, mean over units, behind weights of variance 1 / width."""
    drawn = torch.Generator().manual_seed(seed)
    inputs = torch.randn(4096, WIDTH, generator=drawn, dtype=torch.float64)
    weights = torch.randn(WIDTH, WIDTH, generator=drawn, dtype=torch.float64) / WIDTH**0.5
    return float(get(name)(inputs @ weights).var(0).mean())


STUDY = Study(
    id="golu",
    title="GoLU: variance of outputs, and the loss of small networks",
    paper="2502.03654",
    shrunk="a character model of two layers (150 steps) and three convolutions on digits (200 steps) instead of "
    "ImageNet, COCO and GPT-2; three rates",
    run=run,
    seeds=(0, 1, 2, 3, 4),
)
