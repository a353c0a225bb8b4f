"""Does what a search for activation functions finds stay better when it is trained anew on digits it never saw?

Every one-unit candidate of a small space trains one network; the best five train again with other seeds, beside ReLU,
SiLU and GELU, with rates tuned for each, and are measured on digits that the search had no part of. The table of
rewards then serves the paper's controller and random draws, which get the same number of looks at it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from torch import nn

from ..engine.progress import Steps
from ..functions.controller import learn
from ..functions.methods.protocol import ActivationMethod, NamedFunction
from ..functions.methods.swish_search import SwishSearch
from ..functions.of_formula import FormulaFunction
from ..functions.search import Candidate, Scored, Space, values_of
from ..functions.training.claims import mean, numbers, table
from ..functions.training.networks import mlp
from ..functions.training.tasks import Part, Split, Task, digits, shuffled
from ..functions.training.train import Trained, budget_of, run_once, train
from ..parts.statistics import interval_over_seeds
from ..parts.study import Finding, Study, above

UNARY = ("x", "-x", "square", "sin", "tanh", "max0", "sigmoid", "softplus")
BINARY = ("add", "mul", "sub", "max", "min", "gate")
HIDDEN, STEPS, RATE, TOP, LOOKS = (64, 64), 300, 3e-3, 5, 64
SEARCH_SEED = 100


@dataclass(frozen=True)
class Found(ActivationMethod):
    """A function that was searched for."""

    function: FormulaFunction | None = None

    @property
    def label(self) -> str:
        assert self.function is not None
        return self.function.name

    def module(self, width: int, *, axis: int = -1) -> nn.Module:
        assert self.function is not None
        return self.function.module(width, per="channel", axis=axis)


def run(seeds: Sequence[int], full: bool, steps: Steps) -> list[Finding]:
    pool, held = parts()
    space = Space(units=1) if full else Space(UNARY, BINARY)
    search = SwishSearch(unary=space.unary, binary=space.binary, strategy="exhaustive")
    build = mlp(64, HIDDEN, 10)
    inside = replace(digits(), split=lambda seed: search_split(pool, seed))
    budget = budget_of(inside, seeds=(SEARCH_SEED,), rates=(RATE,), steps=STEPS)

    def reward(function: FormulaFunction) -> float:
        split = inside.split(SEARCH_SEED)
        return run_once(inside, Found(function), build, budget, SEARCH_SEED, RATE, split).tune

    ranked = search.search(reward, steps)
    again = replace(digits(), split=lambda seed: fresh_split(pool, held, seed))
    trained = retrained(again, ranked[:TOP], tuple(seeds), steps)
    top, known = trained[:TOP], {one.label: one for one in trained[TOP:]}
    return [
        _better("The five best of the search beat ReLU when they are trained anew", top, known["relu"], True),
        _better("They beat SiLU, which the paper's search found", top, known["silu"], False),
        _better("They beat GELU", top, known["gelu"], False),
        regression(ranked[:TOP], top),
        against_random(space, ranked, 20),
        table("Accuracy on digits that the search never saw", trained),
    ]


def parts() -> tuple[Part, Part]:
    """Digits for the search and for training, and digits that are only ever tested on."""
    whole = digits().split(SEARCH_SEED)
    inputs, targets = ((whole.fit.inputs, whole.tune.inputs), (whole.fit.targets, whole.tune.targets))
    return Part(torch.cat(inputs), torch.cat(targets)), whole.test


def search_split(pool: Part, seed: int) -> Split:
    """The pool alone; its test part is there for the trainer and read by nobody."""
    return shuffled(pool, seed, (0.7, 0.25, 0.05))


def fresh_split(pool: Part, held: Part, seed: int) -> Split:
    return replace(shuffled(pool, seed, (0.75, 0.25, 0.0)), test=held)


def retrained(task: Task, best: Sequence[Scored], seeds: tuple[int, ...], steps: Steps) -> list[Trained]:
    budget = budget_of(task, seeds=seeds, steps=STEPS)
    methods = [*(Found(one.function) for one in best), *(NamedFunction(name) for name in ("relu", "silu", "gelu"))]
    return [train(task, one, mlp(64, HIDDEN, 10), budget, steps=steps) for one in methods]


def _better(claim: str, top: Sequence[Trained], other: Trained, essential: bool) -> Finding:
    """The mean of the five, seed by seed, against one function."""
    scores = np.mean([one.scores for one in top], 0)
    more = interval_over_seeds([float(a - b) for a, b in zip(scores, other.scores, strict=True)])
    return Finding(
        claim, f"{other.label} {mean(other)}", f"mean of the five {scores.mean():.4f}; gain {more}", above(more, 0.0),
        essential, {"gain": asdict(more), **numbers([*top, other])},
    )  # fmt: skip


def regression(best: Sequence[Scored], top: Sequence[Trained]) -> Finding:
    """How much of the search's reward is luck: the tune score of the same rate with fresh seeds is lower."""
    lost = [one.reward - again.tuning[RATE] for one, again in zip(best, top, strict=True)]
    shown = interval_over_seeds(lost)
    pairs = ", ".join(f"{one.candidate.name} {one.reward:.3f}" for one in best)
    return Finding(
        "The rewards of the five best were partly luck: trained anew, each is lower", f"rewards: {pairs}",
        f"lost {shown} over the five", above(shown, 0.0), False, {"lost": lost},
    )  # fmt: skip


def against_random(space: Space, ranked: Sequence[Scored], repeats: int) -> Finding:
    """The best reward that the controller and random draws find in as many looks at the table of rewards."""
    values = {values_of(one.function): one.reward for one in ranked}
    known: dict[Candidate, float] = {}

    def reward(candidate: Candidate) -> float:
        if candidate not in known:
            known[candidate] = values.get(values_of(candidate.function()), 0.0)
        return known[candidate]

    gained = []
    for seed in range(repeats):
        own = max(one.reward for one in learn(space, reward, LOOKS, seed=seed))
        draws = random.Random(seed)
        gained.append(own - max(reward(space.draw(draws)) for _ in range(LOOKS)))
    more = interval_over_seeds(gained)
    return Finding(
        f"The controller finds better functions than random draws in {LOOKS} looks",
        f"random draws, {repeats} repeats", f"best reward {more} higher", above(more, 0.0), False, {"gained": gained},
    )  # fmt: skip


STUDY = Study(
    id="swish-search",
    title="A search for activation functions, and what is left of it on fresh seeds",
    paper="1710.05941",
    shrunk="one unit of 8 unary and 6 binary functions on two layers of 64 for digits, 300 steps, instead of two units "
    "of 24 and 10 on ResNet-20 for CIFAR-10; --full has all unary and binary functions",
    run=run,
    seeds=(0, 1, 2, 3, 4),
)
