"""The statistic of Mish's own paper at small scale: 23 seeds of each function, one learning rate, Welch's t-test."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..engine.progress import Steps
from ..functions.methods.mish import Mish
from ..functions.methods.protocol import NamedFunction
from ..functions.training.claims import mean, table
from ..functions.training.networks import convolutional
from ..functions.training.tasks import digits
from ..functions.training.train import Trained, budget_of, train
from ..parts.study import Finding, Study

LEVEL = 0.05
RATE = 3e-3


def run(seeds: Sequence[int], full: bool, steps: Steps) -> list[Finding]:
    task = digits(picture=True)
    budget = budget_of(task, seeds=tuple(seeds), rates=(RATE,), steps=800 if full else 250)
    methods = [Mish(), *(NamedFunction(name) for name in ("silu", "gelu", "relu", "tanh"))]
    found = {method.label: train(task, method, convolutional(), budget, steps=steps) for method in methods}
    own = found["Mish"]
    return [
        above("Mish is more accurate than ReLU", own, found["relu"]),
        above("Mish is more accurate than tanh", own, found["tanh"], essential=False),
        same("Mish and Swish cannot be told apart", own, found["silu"]),
        same("Mish and GELU cannot be told apart", own, found["gelu"]),
        table("Test accuracy of all", list(found.values())),
    ]


def welch(one: Trained, other: Trained) -> tuple[float, float]:
    """Difference of the means, and the p of Welch's t-test."""
    from scipy.stats import ttest_ind

    difference = float(np.mean(one.scores) - np.mean(other.scores))
    return difference, float(ttest_ind(one.scores, other.scores, equal_var=False).pvalue)


def above(claim: str, one: Trained, other: Trained, *, essential: bool = True) -> Finding:
    """Reproduced where the mean is higher with p below the level; direction only where it is higher at all."""
    difference, p = welch(one, other)
    verdict = "not reproduced" if difference <= 0 else "reproduced" if p < LEVEL else "direction only"
    return _finding(claim, one, other, difference, p, verdict, essential)


def same(claim: str, one: Trained, other: Trained) -> Finding:
    """Reproduced where p is not below the level, as in the paper's table; a difference of any sign refutes it."""
    difference, p = welch(one, other)
    return _finding(claim, one, other, difference, p, "reproduced" if p >= LEVEL else "not reproduced", False)


def _finding(
    claim: str, one: Trained, other: Trained, difference: float, p: float, verdict: str, essential: bool
) -> Finding:
    measured = f"{one.label} {mean(one)}, difference {difference:+.4f}, p = {p:.2g} over {len(one.scores)} seeds each"
    return Finding(claim, f"{other.label} {mean(other)}", measured, verdict, essential, {"p": p, "gain": difference})


STUDY = Study(
    id="mish",
    title="Mish against ReLU, Swish and GELU: 23 seeds each on digits",
    paper="1908.08681",
    shrunk="three convolutions on 1797 digits, 250 steps, instead of SqueezeNet on CIFAR-10 for 50 epochs",
    run=run,
    seeds=tuple(range(23)),
)
