"""Does a gradient that passes a little below zero keep ReLU's units alive, and does that show in accuracy?"""

from __future__ import annotations

from collections.abc import Sequence

from ..engine.progress import Steps
from ..functions.methods.helu import HeLU
from ..functions.methods.protocol import NamedFunction
from ..functions.training.claims import better, table
from ..functions.training.networks import mlp
from ..functions.training.tasks import digits
from ..functions.training.train import Trained, budget_of, train
from ..parts.statistics import interval_over_seeds
from ..parts.study import Finding, Study, above

ALPHAS = (0.001, 0.01, 0.05, 0.5, 2.0)
# High on purpose: at a tuned rate next to none of ReLU's units die, and there is nothing to keep alive.
RATE = 2e-2


def run(seeds: Sequence[int], full: bool, steps: Steps) -> list[Finding]:
    task = digits()
    budget = budget_of(task, seeds=tuple(seeds), rates=(RATE,), steps=1000 if full else 300)
    names = ("relu", "leaky relu", "gelu", "elu")
    methods = [*(NamedFunction(name) for name in names), *(HeLU(alpha) for alpha in ALPHAS)]
    build = mlp(64, (64,) * 6, 10)
    found = {method.label: train(task, method, build, budget, steps=steps) for method in methods}
    relu = found["relu"]
    # The paper's two values and the largest that it does not call harmful.
    return [
        *(alive(found[f"HeLU {alpha:g}"], relu, alpha == 0.05) for alpha in (0.001, 0.05, 0.5)),
        better("HeLU 0.05 is more accurate than ReLU", found["HeLU 0.05"], relu),
        better("HeLU 0.001 is more accurate than ReLU", found["HeLU 0.001"], relu, essential=False),
        better("HeLU 0.5 is more accurate than ReLU", found["HeLU 0.5"], relu, essential=False),
        better("HeLU 2 is worse than ReLU", relu, found["HeLU 2"], essential=False),
        better("GELU is more accurate than HeLU 0.05", found["gelu"], found["HeLU 0.05"], essential=False),
        table("Test accuracy of all", list(found.values())),
    ]


def alive(candidate: Trained, relu: Trained, essential: bool) -> Finding:
    """Share of hidden units that give the same for all examples, less with it than with ReLU."""
    dead = [[run.health.dead if run.health else 1.0 for run in one.runs] for one in (candidate, relu)]
    fewer = interval_over_seeds([b - a for a, b in zip(*dead, strict=True)])
    own, other = (sum(values) / len(values) for values in dead)
    return Finding(
        f"{candidate.label} leaves fewer units dead than ReLU", f"ReLU {other:.1%}", f"{own:.1%}; {fewer} fewer",
        above(fewer, 0.0), essential, {"fewer": fewer.as_dict()},
    )  # fmt: skip


STUDY = Study(
    id="helu",
    title="HeLU: dead units and accuracy at a high learning rate",
    paper="2411.10573",
    shrunk=f"digits, six layers of 64 without norms, 300 steps at one high rate ({RATE:g}) for all, instead of a wide "
    "residual network and BERT",
    run=run,
    seeds=tuple(range(10)),
)
