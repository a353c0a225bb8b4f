"""Can a small chat model be given a trait by setting one coordinate, so that a judge names the trait from its answers?

Eight traits. Directions come from 20 questions asked of "a <trait> person" and "a person"; the judge (MiniLM sentence
embeddings, logistic regression over the eight) is fitted on what the *prompted* model answers to those questions, so
that it never sees an edited answer. Layer and alpha are chosen on other questions, for the paper's edit, for plain
addition and for random directions alike; each is then asked further questions as each trait.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch

from ..data.traits import asked_as, trait_prompts, trait_questions, traits
from ..edits import SiteEdit, add, by_row, subspace
from ..engine.progress import Steps
from ..model import Model, load
from ..parts.bench import maybe_edited
from ..parts.directions import random_direction
from ..parts.replies import perplexity_ratio
from ..parts.sentences import embed
from ..parts.statistics import Interval, bootstrap_mean
from ..parts.study import Finding, Study, above
from ..steering.personality import Personality

LIMIT = 1.5


class Maker(Protocol):
    """Gives a trait's edit at one layer and alpha."""

    def __call__(self, trait: str, layer: int, alpha: float) -> SiteEdit: ...


@dataclass(frozen=True)
class Size:
    """`tuned` questions choose layer and alpha; `tested` give the figures."""

    layers: tuple[int, ...] = (10, 15, 20)
    alphas: tuple[float, ...] = (1.3, 3.0)
    tuned: int = 3
    tested: int = 10
    new_tokens: int = 24


@dataclass(frozen=True)
class Answers:
    """What was answered as each trait: hits of the judge [trait, question], confusion [trait, judged], fluency."""

    hits: np.ndarray
    confusion: np.ndarray
    perplexity: float
    layer: int = -1
    alpha: float = 0.0


def run(seeds: Sequence[int], full: bool, steps: Steps) -> list[Finding]:
    size = (
        Size(layers=(6, 10, 14, 18, 22, 26), alphas=(1.0, 1.3, 2.0, 3.0), tuned=8, tested=12, new_tokens=40)
        if full
        else Size()
    )
    model = load("smollm2-135m")
    steps.at("prompted answers, for the judge")
    judge, accuracy = fit_judge(model, size)
    steps.at("directions")
    fitted = {layer: directions(model, layer) for layer in size.layers}
    bench = Bench(model, judge, size, steps)
    found = bench.tuned("set coordinate", lambda trait, layer, alpha: fitted[layer][trait].at(alpha))
    added = bench.tuned("addition", lambda trait, layer, alpha: fitted[layer][trait].added(alpha))
    random = [bench.tuned(f"random {seed}", drawn_by(fitted, seed)) for seed in seeds]
    steps.at("prompting")
    prompted = bench.asked(None, trait_questions("test")[: size.tested], prompted=True)
    return [
        induced(found, random, accuracy),
        specific(found),
        against(found, prompted, "asking for the trait in the system prompt"),
        against(found, added, "adding the same vector, tuned alike"),
    ]


# What is done ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Direction:
    """A trait's direction at a layer with the levels of trait and neutral prompts on it."""

    site: str
    unit: torch.Tensor
    level: float

    def at(self, alpha: float) -> SiteEdit:
        return _set(self.site, self.unit, alpha * self.level)

    def added(self, alpha: float) -> SiteEdit:
        return add(self.site, self.unit * alpha * self.level, "content")

    def drawn(self, alpha: float, seed: int) -> SiteEdit:
        """The control: a random direction for each trait, set to the same level."""
        key = int(abs(self.level) * 1e4) + 7919 * seed
        return _set(self.site, random_direction(len(self.unit), key), alpha * self.level)


def _set(site: str, unit: torch.Tensor, goal: float) -> SiteEdit:
    return subspace(site, unit, torch.zeros(1, len(unit)), torch.tensor([goal]), "content")


def drawn_by(fitted: dict[int, dict[str, Direction]], seed: int) -> Maker:
    """Random directions of one seed in place of the fitted ones."""

    def make(trait: str, layer: int, alpha: float) -> SiteEdit:
        return fitted[layer][trait].drawn(alpha, seed)

    return make


def directions(model: Model, layer: int) -> dict[str, Direction]:
    site, found = f"layers.{layer}.out", {}
    for trait in traits():
        edit = Personality(site=site, alpha=1.0).fit(model, trait_prompts(trait))
        assert isinstance(edit, SiteEdit)
        tensors = edit.operator.tensors()
        found[trait] = Direction(site, tensors["basis"][0], float(tensors["bias"][0]))
    return found


def fit_judge(model: Model, size: Size) -> tuple[Any, float]:
    """A classifier of answers by trait, and its accuracy on questions it was not fitted on; chance is one in eight."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_score

    questions = trait_questions("fit")
    asked = [asked_as(trait, question) for trait in traits() for question in questions]
    rows = embed([text or "." for text in model.generate(asked, max_new_tokens=size.new_tokens)])
    labels = np.repeat(np.arange(len(traits())), len(questions))
    groups = np.tile(np.arange(len(questions)), len(traits()))
    judge = LogisticRegression(C=10.0, max_iter=2000)
    accuracy = cross_val_score(judge, rows, labels, groups=groups, cv=GroupKFold(5)).mean()
    return judge.fit(rows, labels), float(accuracy)


class Bench:
    """Questions answered as every trait at once, each row under its own edit."""

    def __init__(self, model: Model, judge: Any, size: Size, steps: Steps):
        self._model, self._judge, self._size, self._steps = model, judge, size, steps
        self._plain: dict[tuple[str, ...], list[str]] = {}

    def tuned(self, name: str, make: Maker) -> Answers:
        """The layer and alpha of most hits on the tuning questions at bearable perplexity, on the test questions."""
        size, questions = self._size, trait_questions("tune")[: self._size.tuned]
        tried = []
        grid = [(layer, alpha) for layer in size.layers for alpha in size.alphas]
        for layer, alpha in self._steps.each(grid, lambda place: f"{name}: layer {place[0]}, alpha {place[1]}"):
            answers = self.asked(partial(make, layer=layer, alpha=alpha), questions)
            tried.append(((answers.perplexity <= LIMIT, answers.hits.mean()), layer, alpha))
        (_, layer, alpha) = max(tried, key=lambda one: one[0])
        self._steps.at(f"{name}: test")
        found = self.asked(lambda trait: make(trait, layer, alpha), trait_questions("test")[: size.tested])
        return Answers(found.hits, found.confusion, found.perplexity, layer, alpha)

    def asked(
        self, make: Callable[[str], SiteEdit] | None, questions: Sequence[str], *, prompted: bool = False
    ) -> Answers:
        names = traits()
        talks = [asked_as(trait if prompted else "", question) for trait in names for question in questions]
        edit = by_row([one for trait in names for one in [make(trait)] * len(questions)]) if make else None
        with maybe_edited(self._model, edit):
            replies = self._model.generate(talks, max_new_tokens=self._size.new_tokens)
        judged = self._judge.predict(embed([text or "." for text in replies])).reshape(len(names), -1)
        hits = (judged == np.arange(len(names))[:, None]).astype(float)
        confusion = np.stack([(judged == column).mean(1) for column in range(len(names))], 1)
        return Answers(hits, confusion, perplexity_ratio(self._model, questions, replies, self._own(questions)))

    def _own(self, questions: Sequence[str]) -> list[str]:
        """What the plain model answers to the questions."""
        key = tuple(questions)
        if key not in self._plain:
            asked = [asked_as("", question) for question in questions]
            self._plain[key] = list(self._model.generate(asked, max_new_tokens=self._size.new_tokens))
        return self._plain[key]


# What follows ---------------------------------------------------------------------------------------------------------


def over_questions(values: np.ndarray) -> Interval:
    """The mean of [trait, question] with an interval over questions."""
    groups = [str(column) for _ in range(values.shape[0]) for column in range(values.shape[1])]
    return bootstrap_mean(values.ravel(), groups=groups)


def induced(found: Answers, random: Sequence[Answers], accuracy: float) -> Finding:
    """Reproduced when hits exceed both chance and the random directions' with their intervals, at bearable perplexity.

    A judge that cannot tell prompted answers apart (below a quarter) leaves nothing to say.
    """
    own = over_questions(found.hits)
    gain = over_questions(found.hits - np.mean([one.hits for one in random], axis=0))
    weakest = Interval(gain.value, min(gain.low, own.low - 1 / len(traits())), gain.high)
    fair = found.perplexity <= LIMIT and accuracy >= 0.25
    return Finding(
        claim="a trait shows in the answers once its coordinate is set (qualitative in the paper)",
        baseline=f"random directions at the same level: {np.mean([one.hits.mean() for one in random]):.1%} of answers "
        f"named right, chance {1 / len(traits()):.1%}; the judge is right on {accuracy:.1%} of prompted answers",
        measured=f"{own.value:.1%} [{own.low:.1%}, {own.high:.1%}] at layer {found.layer}, alpha {found.alpha:g}, "
        f"perplexity x {found.perplexity:.2f}; gain {gain}",
        verdict=above(weakest, 0.0) if fair else "not reproduced",
        numbers={"own": own.as_dict(), "gain": gain.as_dict(), "judge": accuracy, "perplexity": found.perplexity},
    )


def specific(found: Answers) -> Finding:
    """Reproduced when a trait's edit is named as that trait more often than as any other, on average over traits."""
    off = found.confusion - np.diag(np.diag(found.confusion))
    lead = np.diag(found.confusion) - off.max(1)
    interval = bootstrap_mean(lead)
    first = int((lead > 0).sum())
    return Finding(
        claim="each trait's direction induces that trait and not another",
        baseline="the wrong trait named most often, for each trait",
        measured=f"right less most common wrong {interval}; {first} of {len(lead)} traits are named first",
        verdict=above(interval, 0.0),
        essential=False,
        numbers={"confusion": found.confusion.round(3).tolist(), "traits": list(traits())},
    )


def against(found: Answers, other: Answers, name: str) -> Finding:
    """Beside the verdict: the edit against another way of asking for the same."""
    gain = over_questions(found.hits - other.hits)
    return Finding(
        claim=f"it does more than {name}",
        baseline=f"{other.hits.mean():.1%} of answers named right, perplexity x {other.perplexity:.2f}",
        measured=f"{found.hits.mean():.1%}; difference {gain}",
        verdict=above(gain, 0.0),
        essential=False,
        numbers={"gain": gain.as_dict()},
    )


STUDY = Study(
    id="personality",
    title="Personality: eight traits set as coordinates",
    paper="2412.10427",
    shrunk="three layers and two alphas on 3 tuning questions, 10 test questions; --full takes six, four, 8 and 12, "
    "and longer answers. The judge is MiniLM with logistic regression",
    run=run,
    seeds=(0, 1, 2),
)
