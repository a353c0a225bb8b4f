"""VI3NR: does the signal keep its size through 100 layers both ways, and does a picture's network profit from it?

The picture has every start's learning rate tuned among three. VI3NR's own number, the deviation of pre-activations, is
searched around its theoretical value by short runs on the tune part, as the paper advises; SIREN's omega is tuned too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

import torch
from torch import Tensor, nn

from ..engine.progress import Steps
from ..functions.initialisation import draw
from ..functions.methods.protocol import ActivationMethod
from ..functions.methods.vi3nr import VI3NR, best_deviation
from ..functions.moments import curve_of
from ..functions.starts import TORCH_GAINS, Started
from ..functions.training.claims import better, table
from ..functions.training.networks import coordinate_mlp
from ..functions.training.tasks import Task, inr
from ..functions.training.train import Budget, budget_of, train
from ..parts.statistics import interval_over_seeds
from ..parts.study import Finding, Study, above

GAUSSIAN = "Gaussian (INR)"
# The deviations of the official toy experiments; that of the Gaussian is the one at which gradients keep their size.
TOY: dict[str, float | None] = {"tanh": 0.1, "sigmoid": 6.8, GAUSSIAN: None}
DEPTH, ROWS = 100, 256
SHARES = (0.5, 1.0, 2.0)


def run(seeds: Sequence[int], full: bool, steps: Steps) -> list[Finding]:
    toy = [_toy(name, sigma, seeds, 1000 if full else 512, steps) for name, sigma in TOY.items()]
    task = replace(inr(), steps=1000 if full else 400)
    return [*toy, *_picture(task, tuple(seeds), steps)]


# Signals ------------------------------------------------------------------------------------------------------------


def _toy(name: str, sigma: float | None, seeds: Sequence[int], width: int, steps: Steps) -> Finding:
    method = VI3NR(name, sigma)
    ours, theirs = [], []
    for seed in seeds:
        steps.at(f"100 layers of {name}, seed {seed}")
        ours.append(errors(name, method.chosen(), method.gain(), width, seed))
        theirs.append(errors(name, 1.0, TORCH_GAINS.get(curve_of(name).name, 1.0), width, seed))
    # The worse of the two directions, so that neither is bought with the other.
    less = interval_over_seeds([max(b) - max(a) for a, b in zip(ours, theirs, strict=True)])
    return Finding(
        f"100 layers of {name} keep the variance of signal and gradient better than with the gain that torch lists",
        f"errors forwards, backwards: {_mean(theirs)}",
        f"{_mean(ours)} at deviation {method.chosen():.3g}; the worse direction has {less} less",
        above(less, 0.1, neutral=0.0),
        numbers={"less": asdict(less), "ours": ours, "torch": theirs},
    )


def _mean(pairs: Sequence[tuple[float, float]]) -> str:
    return ", ".join(f"{sum(side) / len(side):.3f}" for side in zip(*pairs, strict=True))


def errors(name: str, sigma: float, gain: float, width: int, seed: int) -> tuple[float, float]:
    """Symmetric relative errors, 0 to 1, of the pre-activations' variance against sigma^2 and the gradients' against
    1."""
    f = curve_of(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        start = (sigma * torch.randn(ROWS, width)).requires_grad_()
        h = start
        for _ in range(DEPTH):
            layer = nn.Linear(width, width, bias=False)
            draw(layer, gain, uniform=True)
            h = layer(f(h))
        (found,) = torch.autograd.grad(h, start, torch.randn(ROWS, width))
    return _off(h.detach().var(1), sigma**2), _off(found.var(1), 1.0)


def _off(variance: Tensor, wanted: float) -> float:
    value = ((variance - wanted).abs() / (variance.abs() + wanted)).mean()
    return float(value) if bool(torch.isfinite(value)) else 1.0


# A picture ----------------------------------------------------------------------------------------------------------


def _picture(task: Task, seeds: tuple[int, ...], steps: Steps) -> list[Finding]:
    build = coordinate_mlp()
    short = budget_of(task, seeds=seeds[:1], rates=(3e-3,), steps=100)
    theory = best_deviation(GAUSSIAN)
    ours = _searched([VI3NR(GAUSSIAN, share * theory) for share in SHARES], task, short, steps)
    siren = _searched([Started(GAUSSIAN, "siren", omega) for omega in (10.0, 30.0, 60.0)], task, short, steps)
    others = [Started(GAUSSIAN, "torch"), Started(GAUSSIAN, "xavier"), siren]
    budget = budget_of(task, seeds=seeds, rates=(1e-3, 3e-3, 1e-2))
    own = train(task, ours, build, budget, steps=steps)
    rest = [train(task, one, build, budget, steps=steps) for one in others]
    best = max(rest, key=lambda one: max(one.tuning.values()))
    at = f"deviation {getattr(ours, 'deviation', 0.0):.3g}, in theory {theory:.3g}"
    return [
        better(f"a Gaussian network fits a picture better with VI3NR than with {one.label}", own, one,
               essential=one is best, beside=at)
        for one in rest
    ] + [table("PSNR at pixels that were not trained on, in dB", [own, *rest])]  # fmt: skip


def _searched(candidates: Sequence[ActivationMethod], task: Task, budget: Budget, steps: Steps) -> ActivationMethod:
    """The candidate with the best score on the tune part after a short run."""
    found = {one: train(task, one, coordinate_mlp(), budget, steps=steps) for one in candidates}
    return max(found, key=lambda one: max(found[one].tuning.values()))


STUDY = Study(
    id="vi3nr",
    title="VI3NR: variance through 100 layers, and a picture as a Gaussian network",
    paper="2504.19270",
    shrunk="width 512 and 256 rows instead of 1000 and 10,000; one picture of 64 by 64, 400 steps instead of 1000; "
    "no shapes and no sound",
    run=run,
    seeds=(0, 1, 2, 3, 4),
)
