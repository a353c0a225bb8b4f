"""Does a vector from solved tasks raise accuracy on new items of the task, more than searching random vectors does?

Two tasks that the model solves in part. For each, vectors are fitted on solved items by three estimators; layer and
alpha are chosen on other items by accuracy, ties by the margin; the test items then give accuracy at that place and at
minus alpha. Random vectors of the same length go through the very same search: what they gain is the luck of searching.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..data import Choice
from ..data.reasoning import reasoning, solved
from ..edits import SiteEdit, add
from ..engine.progress import Steps
from ..errors import BadInput
from ..model import Model, load
from ..parts.dial import Dial, Dialled, first_tokens
from ..parts.directions import random_direction
from ..parts.statistics import Interval, bootstrap_mean
from ..parts.study import Finding, Study, above
from ..steering.reasoning_control import ReasoningControl

# The third task of `data.reasoning` is solved without any vector.
TASKS = ("deduction", "sums")
# What each candidate is called, and the settings that it is fitted with.
CANDIDATES = {
    "contrast with noise": ReasoningControl(),
    "contrast with wrong answers": ReasoningControl(negatives="wrong"),
    "principal component": ReasoningControl(estimator="principal", negatives="wrong"),
}


@dataclass(frozen=True)
class Size:
    """Items of each task in each split, and what is searched: a change of `shares` of the stream's norm, both ways."""

    fit: int = 60
    dev: int = 20
    test: int = 60
    layers: tuple[int, ...] = (12, 20)
    shares: tuple[float, ...] = (-0.3, -0.1, 0.1, 0.3)
    draws: int = 6


@dataclass(frozen=True)
class Found:
    """A candidate's chosen place, its accuracy and margin on the items it was chosen by, and the test items there, at
    the opposite alpha, and without it."""

    name: str
    layer: int
    share: float
    chosen_by: tuple[float, float]
    there: Dialled
    opposite: Dialled
    plain: Dialled

    @property
    def gain(self) -> np.ndarray:
        return self.there.right - self.plain.right

    @property
    def fall(self) -> np.ndarray:
        return self.plain.right - self.opposite.right


def run(seeds: Sequence[int], full: bool, steps: Steps) -> list[Finding]:
    size = Size(fit=200, dev=100, test=300, layers=(6, 10, 14, 18, 22), draws=20) if full else Size()
    model = load("smollm2-135m")
    found: dict[str, list[Found]] = {}
    random: dict[str, list[Found]] = {}
    for task in TASKS:
        search = Search(model, task, size, seeds[0], steps)
        found[task] = [search.best(name, search.fitted(method)) for name, method in CANDIDATES.items()]
        random[task] = [search.best(f"random {n}", search.drawn(seeds[0] + n)) for n in range(size.draws)]
    chosen = {task: max(tried, key=lambda one: one.chosen_by) for task, tried in found.items()}
    up = [raises(task, found[task], random[task]) for task in found]
    return [*up, both_ways(chosen, random), spread(chosen)]


class Search:
    """One task's items in three splits, and the search over layers and strengths that every candidate goes through."""

    def __init__(self, model: Model, task: str, size: Size, seed: int, steps: Steps):
        items = distinct(model, reasoning(task, size.fit + size.dev + size.test + 40, seed))
        dev, test = items[size.fit : size.fit + size.dev], items[size.fit + size.dev :][: size.test]
        after = [layer + 1 for layer in size.layers]
        steps.at(f"{task}: the unedited model")
        self.model, self.task, self.size, self.steps = model, task, size, steps
        self.solved = solved(items[: size.fit], seed)
        self.dev, self.test = Dial(model, dev, after), Dial(model, test, after)
        self.plain = self.test.at(None)
        self.norms: dict[int, float] = {}

    def fitted(self, method: ReasoningControl) -> dict[int, SiteEdit]:
        """By layer, an edit whose strength is a share of the stream's norm."""
        edits = method.fit_layers(self.model, self.solved, self.size.layers)  # type: ignore[arg-type]
        self.norms = {layer: edit.provenance.stream_norm[edit.site] for layer, edit in edits.items()}  # type: ignore[attr-defined]
        return edits  # type: ignore[return-value]

    def drawn(self, seed: int) -> dict[int, SiteEdit]:
        vector = random_direction(self.model.width or 0, 100 + seed)
        return {layer: add(f"layers.{layer}.out", vector * norm, "all") for layer, norm in self.norms.items()}

    def best(self, name: str, edits: dict[int, SiteEdit]) -> Found:
        tried = []
        for layer, edit in self.steps.each(edits.items(), lambda item: f"{self.task}, {name}: layer {item[0]}"):
            for share in self.size.shares:
                at = self.dev.at(edit, share)
                tried.append((float(at.right.mean()), float(at.margin.mean()), layer, share))
        right, margin, layer, share = max(tried)
        there, opposite = (self.test.at(edits[layer], sign * share) for sign in (1, -1))
        return Found(name, layer, share, (right, margin), there, opposite, self.plain)


def distinct(model: Model, items: Sequence[Choice]) -> tuple[Choice, ...]:
    """The items whose candidates' first tokens differ."""
    kept = []
    for item in items:
        try:
            first_tokens(model, item)
        except BadInput:
            continue
        kept.append(item)
    return tuple(kept)


# What follows ---------------------------------------------------------------------------------------------------------


def raises(task: str, found: Sequence[Found], random: Sequence[Found]) -> Finding:
    """Reproduced when the gain on test items of the candidate that was best on the items to choose by has its interval
    above the 95th percentile of random searches."""
    best = max(found, key=lambda one: one.chosen_by)
    luck = float(np.quantile([one.gain.mean() for one in random], 0.95))
    gain = bootstrap_mean(best.gain)
    listed = {
        one.name: {"layer": one.layer, "share": one.share, "gain": one.gain.mean(), "kl": one.there.kl.mean()}
        for one in found
    }
    return Finding(
        claim=f"{task}: the vector raises accuracy",
        baseline=f"unedited {best.plain.right.mean():.1%}; 95th percentile of {len(random)} random searches "
        f"{luck:+.1%}",
        measured=f"{best.there.right.mean():.1%}, gain {gain.value:+.1%} [{gain.low:+.1%}, {gain.high:+.1%}] by "
        f"{best.name} at layer {best.layer}, {best.share:+g} of the norm; KL {best.there.kl.mean():.2f} nats",
        verdict=above(gain, max(luck, 0.0)),
        numbers={"gain": gain.as_dict(), "luck": luck, "candidates": listed},
    )


def both_ways(chosen: dict[str, Found], random: dict[str, list[Found]]) -> Finding:
    """Reproduced when the opposite sign lowers accuracy by more than random directions do, pooled over tasks."""
    falls = np.concatenate([one.fall for one in chosen.values()])
    luck = float(np.mean([one.fall.mean() for tried in random.values() for one in tried]))
    fall = bootstrap_mean(falls)
    return Finding(
        claim="the opposite alpha lowers accuracy: the dial turns both ways",
        baseline=f"random directions at the opposite of their best: {luck:+.1%}",
        measured=f"accuracy falls by {fall.value:+.1%} [{fall.low:+.1%}, {fall.high:+.1%}] over "
        + ", ".join(f"{task} {one.fall.mean():+.1%}" for task, one in chosen.items()),
        verdict=above(fall, max(luck, 0.0)),
        essential=False,
        numbers={"fall": fall.as_dict(), "random": luck},
    )


def spread(chosen: dict[str, Found]) -> Finding:
    """Beside the verdict: whether a gain comes with a changed distribution: entropy and mass on the right answer."""
    change = bootstrap_mean(np.concatenate([one.there.mass - one.plain.mass for one in chosen.values()]))
    entropy = bootstrap_mean(np.concatenate([one.there.entropy - one.plain.entropy for one in chosen.values()]))
    return Finding(
        claim="more probability goes to the right answer's first token",
        baseline="no change",
        measured=f"mass {change}, entropy {entropy} bits",
        verdict=above(Interval(change.value, change.low, change.high), 0.0),
        essential=False,
        numbers={"mass": change.as_dict(), "entropy": entropy.as_dict()},
    )


STUDY = Study(
    id="reasoning-control",
    title="Reasoning control vectors on two small tasks with right answers",
    paper="2504.19483",
    shrunk="two tasks written for a model of this size, deduction from two rules and sums in words; 60 items to fit, "
    "20 to choose, 60 to test of each, two layers, 6 random searches; --full takes 200, 100, 300, five layers and 20. "
    "Strengths are shares of the stream's norm for all candidates",
    run=run,
    seeds=(0,),
)
