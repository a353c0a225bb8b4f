"""Can small data rank the fixed functions of the survey? All of them under one protocol, and how seeds agree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..engine.progress import Steps
from ..functions.methods.survey_400 import ListedFunction
from ..functions.of_formula import FormulaFunction
from ..functions.table import rows
from ..functions.training.claims import listed
from ..functions.training.comparing import agreement
from ..functions.training.networks import Build, convolutional, mlp
from ..functions.training.tasks import Task, digits
from ..functions.training.train import Budget, Trained, budget_of, train
from ..functions.zoo import get
from ..parts.study import Finding, Study

# A rank correlation below which an order is said to be the seeds', not the functions'.
CLEAR = 0.5
TOP, FEW = 30, 14
# Higher than the usual ones of the task, since the budget of steps is short.
RATES = (3e-3, 1e-2, 3e-2)
COMMON = ("relu", "gelu", "silu", "tanh", "logistic", "elu", "mish")


def run(seeds: Sequence[int], full: bool, steps: Steps) -> list[Finding]:
    flat, pictures = digits(), digits(picture=True)
    budget = budget_of(flat, seeds=tuple(seeds), rates=RATES, steps=400 if full else 120)
    all_of_them = fixed()
    found = _train(flat, all_of_them, mlp(64, (64, 64), 10), budget, steps)
    best = sorted(found, key=lambda one: float(np.mean(one.scores)), reverse=True)[:TOP]
    few = all_of_them if full else [*COMMON, *all_of_them[:: max(1, len(all_of_them) // FEW)]]
    seen = _train(pictures, list(dict.fromkeys(get(one).name for one in few)), convolutional(), budget, steps)
    return [
        ranked("The order of all fixed functions is the same from seed to seed", found, True),
        ranked(f"The order of the {TOP} best is the same from seed to seed", best, True),
        ranked("Behind three convolutions, the order of a part of them is the same from seed to seed", seen, False),
        between(found, seen),
        useless(found),
    ]


def fixed() -> list[str]:
    """Fixed elementwise functions of the list, of high confidence, in its order."""
    listed_rows = [row for row in rows().values() if row.kind == "fixed" and row.confidence == "high"]
    made = [get(row.name) for row in listed_rows]
    return [one.name for one in made if isinstance(one, FormulaFunction) and not one.random]


def _train(task: Task, listed_names: Sequence[str], build: Build, budget: Budget, steps: Steps) -> list[Trained]:
    return [train(task, ListedFunction(name), build, budget, steps=steps) for name in listed_names]


def ranked(claim: str, trained: Sequence[Trained], essential: bool) -> Finding:
    """Mean Spearman correlation of accuracies between two seeds."""
    found = agreement(trained)
    verdict = "reproduced" if found > CLEAR else "direction only" if found > 0.2 else "not reproduced"
    top = sorted(trained, key=lambda one: float(np.mean(one.scores)), reverse=True)
    return Finding(
        claim, f"rank correlation above {CLEAR:g}",
        f"{found:.2f} over {len(trained)} functions, {len(trained[0].scores)} seeds; best: {listed(top[:5])}; worst: "
        f"{listed(top[-3:])}",
        verdict, essential, {"agreement": found, "scores": {one.label: list(one.scores) for one in trained}},
    )  # fmt: skip


def between(flat: Sequence[Trained], pictures: Sequence[Trained]) -> Finding:
    """Whether what is good in one network is good in another."""
    from scipy.stats import spearmanr

    both = {one.label: float(np.mean(one.scores)) for one in flat}
    pairs = [(both[one.label], float(np.mean(one.scores))) for one in pictures if one.label in both]
    found = float(spearmanr(*zip(*pairs, strict=True)).statistic)
    return Finding(
        "What is good in one network is good in another", f"rank correlation above {CLEAR:g}",
        f"{found:.2f} over {len(pairs)} functions", "reproduced" if found > CLEAR else "not reproduced", False,
        {"correlation": found},
    )  # fmt: skip


def useless(trained: Sequence[Trained]) -> Finding:
    """Functions with which nothing is learnt at any of the rates."""
    lost = [one.label for one in trained if np.mean(one.scores) < 0.3]
    return Finding(
        "Every fixed function of the list can be trained with", "accuracy of at least 0.3; chance is 0.1",
        f"{len(trained) - len(lost)} of {len(trained)} can; not: {', '.join(lost) or 'none'}",
        "reproduced" if not lost else "not reproduced", False, {"lost": lost},
    )  # fmt: skip


STUDY = Study(
    id="survey-400",
    title="All fixed functions of the survey on digits, and whether seeds agree",
    paper="2402.09092",
    shrunk="120 steps; the network with convolutions takes every few of the functions and the usual ones",
    run=run,
)
