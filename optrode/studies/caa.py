"""CAA: does one vector from letter-answered questions move a chat model's choice between a cheerful and a gloomy reply?

The card's check: the vector is fitted on pairs about some subjects, its layer is chosen on others, and the effect is
measured on a third set: P(matching letter) at multiplier +1 less that at -1. Baselines at the chosen layer: random
vectors of the same norm, the same pipeline with the match labels shuffled (what is left is the letter part), and a
one-line system prompt. What the vector does to freely written replies is reported beside the verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..data import Behaviour, Choice, Pair, behaviour
from ..edits import SiteEdit, add
from ..edits.base import Edit, SiteEditBase
from ..engine.progress import Steps
from ..model import Model, load
from ..parts.bench import maybe_edited, rewrites_prompt, write_replies
from ..parts.choice import ForcedChoice
from ..parts.judge import Judge, fit_judge
from ..parts.pairs import Letters, as_letters
from ..parts.statistics import Interval, bootstrap_mean
from ..parts.study import Finding, Study, above
from ..steering.caa import CAA
from ..steering.prompting import Prompting


@dataclass(frozen=True)
class Size:
    """How much of everything is used. `fit`, `choose` and `test` count subjects; none is in two splits."""

    fit: int = 12
    choose: int = 4
    test: int = 8
    random_vectors: int = 20
    shuffles: int = 20
    written: int = 24
    new_tokens: int = 24


@dataclass(frozen=True)
class Split:
    """Pairs to fit on, and questions to choose the layer and to test with."""

    fit: tuple[Pair, ...]
    choose: tuple[Choice, ...]
    test: tuple[Choice, ...]


def run(seeds: Sequence[int], full: bool, steps: Steps) -> list[Finding]:
    size = Size(written=72, new_tokens=40) if full else Size()
    model, sentiment = load("smollm2-135m"), behaviour("sentiment")
    return experiment(model, sentiment, split_by_subject(sentiment.fit, size), size, seeds[0], steps)


def experiment(
    model: Model, data: Behaviour, split: Split, size: Size, seed: int, steps: Steps, judge: Judge | None = None
) -> list[Finding]:
    """The whole check on any chat model. `data` gives the system prompts, the free prompts and the judge's texts."""
    method = CAA(form="letters")
    steps.at("reading the pairs")
    sites = [f"layers.{layer}.out" for layer in range(model.layers)]
    contrast = method.contrast(model, split.fit, sites)
    edits = {layer: method.edit_at(model, contrast, site) for layer, site in enumerate(sites)}
    layer, by_layer = choose_layer(model, edits, split.choose, steps)
    edit, site = edits[layer], sites[layer]
    asked = ForcedChoice(model, split.test, [layer, layer + 1])

    def effect(edit: Edit) -> np.ndarray:
        return two_sided(model, asked, edit)

    steps.at("testing")
    own = bootstrap_mean(effect(edit), groups=asked.groups, seed=seed)
    random = controls(effect, (random_like(edit, seed + n) for n in range(size.random_vectors)), "random", steps)
    labels = [method.edit_at(model, contrast.shuffled(seed + n), site) for n in range(size.shuffles)]
    shuffled = controls(effect, labels, "shuffled", steps)
    stretched = controls(effect, [as_long_as(edit, one) for one in labels], "shuffled, same norm", steps)
    steps.at("system prompt")
    asking = bootstrap_mean(prompted(model, asked, data), groups=asked.groups, seed=seed)
    numbers = {
        "effect": own.as_dict(),
        "layer": layer,
        "norm_share": float(vector_of(edit).norm()) / contrast.norm[site],
        "by_layer": [round(value, 5) for value in by_layer],
        "random": random,
        "shuffled": shuffled,
        "shuffled_same_norm": stretched,
    }
    return [
        moves_the_choice(own, random, shuffled, layer, numbers),
        against_stretched(own, stretched),
        against_prompt(own, asking),
        moves_replies(model, data, edit, size, seed, steps, judge),
    ]


# What is done ---------------------------------------------------------------------------------------------------------


def split_by_subject(pairs: Sequence[Pair], size: Size) -> Split:
    """Subjects in their order: every third for the test set, the rest first for fitting, then for choosing."""
    subjects = list(dict.fromkeys(pair.group for pair in pairs))
    test = subjects[::3][: size.test]
    rest = [subject for subject in subjects if subject not in test]
    fit, choose = rest[: size.fit], rest[size.fit : size.fit + size.choose]

    def of(names: Sequence[str]) -> tuple[Pair, ...]:
        return tuple(pair for pair in pairs if pair.group in names)

    return Split(of(fit), as_choices(of(choose)), as_choices(of(test)))


def as_choices(pairs: Sequence[Pair]) -> tuple[Choice, ...]:
    """Two-letter questions, the answer opened with "(": the matching letter is the side that shows the behaviour."""
    return tuple(_choice(item, pair.group) for item, pair in zip(as_letters(pairs), pairs, strict=True))


def _choice(item: Letters, group: str) -> Choice:
    return Choice(item.question, item.positive[:-1], (item.positive[-1],), (item.negative[-1],), group)


def two_sided(model: Model, asked: ForcedChoice, edit: Edit) -> np.ndarray:
    """P(matching letter) at multiplier +1 less that at -1, each normalised over both letters, [question]."""
    with maybe_edited(model, edit):
        raised = torch.sigmoid(asked.ask())
    with maybe_edited(model, -edit):
        lowered = torch.sigmoid(asked.ask())
    return (raised - lowered).double().numpy()


def choose_layer(
    model: Model, edits: dict[int, SiteEditBase], questions: Sequence[Choice], steps: Steps
) -> tuple[int, list[float]]:
    """The layer of largest mean effect, the earliest where two are equal; and the effect of each."""
    asked = ForcedChoice(model, questions, sorted({*edits, *(layer + 1 for layer in edits)}))
    found = {
        layer: float(two_sided(model, asked, edits[layer]).mean())
        for layer in steps.each(edits, lambda layer: f"layer {layer}")
    }
    return max(found, key=lambda layer: (found[layer], -layer)), list(found.values())


def vector_of(edit: SiteEditBase) -> torch.Tensor:
    """The vector of CAA's edit, which is one addition."""
    assert isinstance(edit, SiteEdit)
    return edit.operator.tensors()["vector"]


def as_long_as(edit: SiteEditBase, other: SiteEditBase) -> SiteEdit:
    """`other` at the length of `edit`; a zero vector stays what it is."""
    assert isinstance(edit, SiteEdit)
    vector = vector_of(other)
    length = float(vector.norm())
    return add(edit.site, vector * (float(vector_of(edit).norm()) / length if length else 1.0), edit.positions)


def random_like(edit: SiteEditBase, seed: int) -> SiteEdit:
    """A random vector of the edit's norm, at the same place."""
    assert isinstance(edit, SiteEdit)
    drawn = torch.randn(vector_of(edit).shape, generator=torch.Generator().manual_seed(seed))
    return as_long_as(edit, add(edit.site, drawn, edit.positions))


def controls(
    effect: Callable[[Edit], np.ndarray], edits: Iterable[SiteEditBase], name: str, steps: Steps
) -> list[float]:
    """The mean effect of each control."""
    return [float(effect(edit).mean()) for edit in steps.each(edits, lambda _: name)]


def prompted(model: Model, asked: ForcedChoice, data: Behaviour) -> np.ndarray:
    """What `two_sided` is for the vector, for the two system prompts, [question]."""
    found = []
    for sign in (1, -1):
        edit = Prompting().facing(sign).fit(model, data)
        with model.edited(edit):
            found.append(torch.sigmoid(asked.ask(fresh=rewrites_prompt(edit))))
    return (found[0] - found[1]).double().numpy()


# What follows ---------------------------------------------------------------------------------------------------------


def moves_the_choice(
    own: Interval, random: Sequence[float], shuffled: Sequence[float], layer: int, numbers: dict[str, object]
) -> Finding:
    """Reproduced when the interval's low end exceeds the 95th percentile of both vector baselines (the card's rule)."""
    highest = [float(np.quantile(values, 0.95)) for values in (random, shuffled)]
    return Finding(
        claim="P(matching answer) rises with the vector and falls without it (.28 to .63 in Llama 2 13B, survival)",
        baseline=f"95th percentile of {len(random)} random vectors of the same norm {highest[0]:+.4f}, "
        f"of {len(shuffled)} fits on shuffled labels {highest[1]:+.4f}",
        measured=f"P at +1 less P at -1: {own.value:+.4f} [{own.low:+.4f}, {own.high:+.4f}] at layer {layer}",
        verdict=above(own, max(highest)),
        numbers=numbers,
    )


def against_stretched(own: Interval, stretched: Sequence[float]) -> Finding:
    """Beside the verdict: fits on shuffled labels are short; here they are as long as the vector."""
    highest = float(np.quantile(stretched, 0.95))
    return Finding(
        claim="the same at equal norm: the effect is more than that of the letters",
        baseline=f"95th percentile of {len(stretched)} fits on shuffled labels, stretched to the same norm: "
        f"{highest:+.4f}",
        measured=f"{own.value:+.4f} [{own.low:+.4f}, {own.high:+.4f}]",
        verdict=above(own, highest),
        essential=False,
    )


def against_prompt(own: Interval, asking: Interval) -> Finding:
    """Beside the verdict: whether the vector does more than asking in the system prompt."""
    return Finding(
        claim="the vector moves the choice more than a one-line system prompt does",
        baseline=f"system prompts for and against: {asking.value:+.4f} [{asking.low:+.4f}, {asking.high:+.4f}]",
        measured=f"{own.value:+.4f} [{own.low:+.4f}, {own.high:+.4f}]",
        verdict=above(own, max(asking.value, 0.0)),
        essential=False,
        numbers={"prompting": asking.as_dict()},
    )


def moves_replies(
    model: Model, data: Behaviour, edit: Edit, size: Size, seed: int, steps: Steps, judge: Judge | None
) -> Finding:
    """Beside the verdict: freely written replies at +1 and -1, as the judge reads them."""
    steps.at("free replies")
    judge = judge or fit_judge(data.judge)
    step = max(1, len(data.test) // size.written)
    asked = data.test[::step][: size.written]
    for_it, against_it = (
        judge(write_replies(model, asked, edit * sign, new_tokens=size.new_tokens).replies) for sign in (1, -1)
    )
    moved = bootstrap_mean(for_it - against_it, groups=[choice.group for choice in asked], seed=seed)
    trusted = "" if judge.trusted else "; the judge is not good enough to tell"
    return Finding(
        claim="freely written replies follow the vector too (judged 1.65 to 4.38 of 10 in Llama 2 7B, myopia)",
        baseline=f"no difference; judge right on {judge.accuracy:.0%} of held-out texts",
        measured=f"judged probability at +1 less that at -1: {moved.value:+.3f} "
        f"[{moved.low:+.3f}, {moved.high:+.3f}]{trusted}",
        verdict=above(moved, 0.0) if judge.trusted else "not reproduced",
        essential=False,
        numbers={"moved": moved.as_dict(), "judge": judge.describe()},
    )


STUDY = Study(
    id="caa",
    title="CAA: letter-answered questions about cheerful and gloomy replies",
    paper="2312.06681",
    shrunk="240 pairs instead of 300 items: 120 to fit, 40 to choose the layer, 80 to test; 24 free replies",
    run=run,
    seeds=(0,),
)
