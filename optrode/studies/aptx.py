"""APTx is Swish with another slope: does training tell them apart, and is it cheaper to compute?"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..engine.progress import Steps
from ..functions.methods.aptx import APTx
from ..functions.methods.protocol import ActivationMethod, NamedFunction
from ..functions.of_formula import from_formula
from ..functions.training.claims import alike, better, table
from ..functions.training.networks import mlp
from ..functions.training.tasks import digits
from ..functions.training.train import budget_of, train
from ..parts.study import Finding, Study

NUMBERS, ROUNDS = 2**21, 7


class Slope2(ActivationMethod):
    """x sigmoid(2 x) in its own formula."""

    title = "Swish, slope 2"

    def module(self, width: int, *, axis: int = -1) -> torch.nn.Module:
        return from_formula("x*sigmoid(2*x)").module(axis=axis)


def run(seeds: Sequence[int], full: bool, steps: Steps) -> list[Finding]:
    task = digits()
    budget = budget_of(task, seeds=tuple(seeds), steps=1000 if full else 300)
    methods = [APTx(), Slope2(), APTx(trainable=True), NamedFunction("silu"), NamedFunction("mish")]
    build = mlp(64, (64, 64, 64), 10)
    found = {method.label: train(task, method, build, budget, steps=steps) for method in methods}
    own = found["APTx"]
    steps.at("timing")
    return [
        alike("With its defaults it trains as x sigmoid(2x) does, which it equals", own, found["Swish, slope 2"], 0.01),
        better("It is more accurate than SiLU", own, found["silu"], essential=False),
        better("It is more accurate than Mish", own, found["mish"], essential=False),
        better("Its three numbers trained are better than fixed", found["APTx (trained)"], own, essential=False),
        cheaper("mish", "Written out in PyTorch, it takes less time than Mish written out", essential=True),
        cheaper("silu", "It takes less time than PyTorch's fused SiLU"),
        table("Test accuracy of all", list(found.values())),
    ]


def written_aptx(x: Tensor) -> Tensor:
    return (1 + torch.tanh(x)) * 0.5 * x


def written_mish(x: Tensor) -> Tensor:
    return x * torch.tanh(torch.log1p(torch.exp(x)))


def cheaper(other: str, claim: str, *, essential: bool = False) -> Finding:
    """Forward and backward of both in turn; the ratio of every round, the median and the spread."""
    function = written_mish if other == "mish" else torch.nn.functional.silu
    x = torch.randn(NUMBERS, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    ratios = [_seconds(written_aptx, x) / _seconds(function, x) for _ in range(ROUNDS + 1)][1:]
    low, middle, high = np.quantile(ratios, [0.0, 0.5, 1.0])
    verdict = "reproduced" if high < 1 else "direction only" if middle < 1 else "not reproduced"
    return Finding(
        claim, f"{other} takes 1", f"{middle:.2f} of its time [{low:.2f}, {high:.2f}] over {ROUNDS} rounds", verdict,
        essential, {"ratios": ratios},
    )  # fmt: skip


def _seconds(function: Callable[[Tensor], Tensor], x: Tensor) -> float:
    x.grad = None
    started = time.perf_counter()
    function(x).sum().backward()
    return time.perf_counter() - started


STUDY = Study(
    id="aptx",
    title="APTx and the Swish that it equals",
    paper="2209.06119",
    shrunk="digits, three layers of 64, 300 steps; times of 2^21 numbers on one thread",
    run=run,
    seeds=tuple(range(10)),
)
