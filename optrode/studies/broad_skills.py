"""Can a broad skill be lowered apart from the rest, and do several behaviours survive being steered at once?

A: the mean of plain English less the mean of Python code is added at one layer at growing strength; next-token accuracy
on held-out code is compared with that under vectors of permuted coordinates at equal accuracy on held-out English. Code
is the standard library's own, English the neutral passages that come with optrode.

B: four behaviours are steered together: their vectors summed at one layer, made orthogonal first, or each at a layer of
its own. Every combination is scaled until it changes the stream behind them all by the same share of its norm.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from ..data import Categorised, behaviour, neutral_texts
from ..edits import SiteEdit
from ..edits.base import Edit, SiteEditBase
from ..engine.progress import Steps
from ..engine.reading.read import read, residuals
from ..model import Model, load
from ..parts.bench import maybe_edited
from ..parts.metrics.letters import LetterAnswers, LetterQuestions
from ..parts.statistics import Interval, bootstrap_mean, interval_over_seeds
from ..parts.study import Finding, Study, above
from ..steering.auditing import reach_of
from ..steering.broad_skills import BroadSkills, merged, permuted, simultaneous

MODULES = ("textwrap", "bisect", "heapq", "fnmatch", "queue", "shelve", "sched", "calendar", "stat", "string")
BEHAVIOURS = ("myopia", "extraversion", "formality", "sentiment")


@dataclass(frozen=True)
class Size:
    """Texts of either corpus to fit on and to score; pairs of each behaviour to fit and to test."""

    fit: int = 20
    scored: int = 10
    layers: tuple[int, ...] = (15,)
    shares: tuple[float, ...] = (0.1, 0.2, 0.4)
    permutations: int = 4
    pairs: int = 16
    tested: int = 6
    change: float = 0.25
    orders: int = 2


def run(seeds: Sequence[int], full: bool, steps: Steps) -> list[Finding]:
    size = Size(40, 20, (5, 10, 15, 20, 25), (0.05, 0.1, 0.2, 0.3, 0.4, 0.6), 20, 120, 40, orders=6) if full else Size()
    model = load("smollm2-135m")
    return [broad(model, size, steps), several(model, size, steps)]


def fit_at(model: Model, data: Any, layers: Sequence[int]) -> dict[int, SiteEdit]:
    """The method at several layers, with strengths in shares of the stream's norm."""
    method = BroadSkills(reading="mean")
    contrast = method.contrast(model, data, [f"layers.{layer}.out" for layer in layers])
    return {layer: method.stream_edit(model, contrast, f"layers.{layer}.out") for layer in layers}


# A: one skill ---------------------------------------------------------------------------------------------------------


def code_texts(count: int, lines: int = 9) -> list[str]:
    """Pieces of standard library modules, without their licences and headings."""
    pieces = []
    for name in MODULES:
        source = [line for line in inspect.getsource(import_module(name)).splitlines() if line.strip()]
        pieces += ["\n".join(source[start : start + lines]) for start in range(20, len(source) - lines, lines)][:8]
    return pieces[:: max(1, len(pieces) // count)][:count]


class Predicted:
    """Share of next tokens that are the likeliest ones, text by text, under any edit."""

    def __init__(self, model: Model, texts: Sequence[str], layers: Sequence[int]):
        self._model = model
        self._batch = model.encode(list(texts), template="raw")
        self._cached = residuals(model, self._batch, [layer + 1 for layer in layers])

    def accuracy(self, edit: Edit | None = None) -> float:
        with maybe_edited(self._model, edit):
            logits = read(self._model, self._cached, "logits")["logits"]
        right = logits[:, :-1].argmax(-1) == self._batch.ids[:, 1:]
        counted = self._batch.mask[:, 1:] & self._batch.mask[:, :-1]
        return float(right[counted].float().mean())


def broad(model: Model, size: Size, steps: Steps) -> Finding:
    """Reproduced when code falls further than under every second permuted vector at equal English accuracy: the mean
    gap over strengths has its interval over permutations above zero, at the best layer, which every control shares."""
    steps.at("reading both corpora")
    code, english = code_texts(size.fit + size.scored), list(neutral_texts(size.fit + size.scored))
    data = Categorised(target=english[: size.fit], others={}, neutral=code[: size.fit])
    edits = fit_at(model, data, size.layers)
    on_code, on_english = (Predicted(model, texts[size.fit :], size.layers) for texts in (code, english))
    base = on_code.accuracy(), on_english.accuracy()
    gaps: dict[int, list[float]] = {}
    curves: dict[int, list[tuple[float, float]]] = {}
    for layer, edit in steps.each(edits.items(), lambda item: f"layer {item[0]}"):

        def curve(one: SiteEdit) -> list[tuple[float, float]]:
            points = [(on_english.accuracy(one * share), on_code.accuracy(one * share)) for share in size.shares]
            return [(base[1], base[0]), *points]

        own = curves[layer] = curve(edit)
        gaps[layer] = [gap_at_equal(own, curve(permuted(edit, seed))) for seed in range(size.permutations)]
    best = max(gaps, key=lambda layer: float(np.mean(gaps[layer])))
    gap = interval_over_seeds(gaps[best])
    return Finding(
        claim="one vector lowers code more than English (Llama 2: code .47, permuted .62, where English is .50)",
        baseline=f"unedited: code {base[0]:.1%}, English {base[1]:.1%}; permuted coordinates at equal English accuracy",
        measured=f"code lower by {gap.value:.1%} [{gap.low:.1%}, {gap.high:.1%}] at layer {best}; "
        + "; ".join(f"English {english:.0%} code {code:.0%}" for english, code in curves[best][1:]),
        verdict=above(gap, 0.0),
        numbers={"gap": gap.as_dict(), "curves": curves, "gaps": gaps},
    )


def gap_at_equal(own: Sequence[tuple[float, float]], control: Sequence[tuple[float, float]]) -> float:
    """Mean over the own curve's points of the control's code accuracy, at the same English accuracy, less the own."""
    english, code = np.array(sorted(control)).T
    return float(np.mean([np.interp(e, english, code) - c for e, c in own[1:] if e >= english[0]] or [0.0]))


# B: several behaviours ------------------------------------------------------------------------------------------------


def several(model: Model, size: Size, steps: Steps) -> Finding:
    """Reproduced when the worst behaviour gains more with a layer each than with the best way of merging: the interval
    over pairs of the difference lies above zero."""
    layers = [max(0, model.layers // 2 - 2) + number for number in range(len(BEHAVIOURS))]
    steps.at("fitting four behaviours")
    fitted: dict[str, dict[int, SiteEdit]] = {}
    asked: dict[str, LetterQuestions] = {}
    for name in BEHAVIOURS:
        pairs = behaviour(name).fit
        spread = [pairs[int(k)] for k in np.linspace(0, len(pairs) - 1, size.pairs + size.tested)]
        fitted[name] = fit_at(model, spread[size.tested :], layers)
        asked[name] = LetterQuestions(model, spread[: size.tested], [layers[0] + 1])
    plain = {name: questions.ask() for name, questions in asked.items()}
    site = f"layers.{layers[1]}.out"
    at_one = [fitted[name][layers[1]] for name in BEHAVIOURS]
    ways: dict[str, SiteEditBase] = {
        "merged": merged(at_one, site),
        "orthogonalised": merged(at_one, site, form="orthogonal"),
    }
    for number in range(size.orders):
        order = np.random.default_rng(number).permutation(layers).tolist() if number else layers
        ways[f"a layer each, order {number + 1}"] = simultaneous(fitted, dict(zip(BEHAVIOURS, order, strict=True)))
    found: dict[str, dict[str, LetterAnswers]] = {}
    prompts = [pair.prompt for pair in behaviour("sentiment").fit[:8]]
    for way, edit in steps.each(ways.items(), lambda item: item[0]):
        same = scaled_to(model, edit, prompts, f"layers.{layers[-1]}.out", size.change)
        found[way] = {name: questions.ask(same) for name, questions in asked.items()}
    return compared(found, plain)


def scaled_to(model: Model, edit: SiteEditBase, prompts: Sequence[str], site: str, share: float) -> Edit:
    """The edit at the strength at which it changes the stream at `site` by `share` of its norm, in two steps."""
    strength = 0.1
    for _ in range(2):
        strength *= share / reach_of(model, edit * strength, prompts, site).share
    return edit * strength


def compared(found: dict[str, dict[str, LetterAnswers]], plain: dict[str, LetterAnswers]) -> Finding:
    gains = {
        way: {name: answers[name].log_odds - plain[name].log_odds for name in answers} for way, answers in found.items()
    }
    worst = {way: min(float(gain.mean()) for gain in own.values()) for way, own in gains.items()}
    merging = max((way for way in worst if not way.startswith("a layer")), key=lambda way: worst[way])
    apart = max((way for way in worst if way.startswith("a layer")), key=lambda way: worst[way])
    behind = min(gains[apart], key=lambda name: float(gains[apart][name].mean()))
    other = min(gains[merging], key=lambda name: float(gains[merging][name].mean()))
    better = bootstrap_mean(gains[apart][behind] - gains[merging][other])
    text = "; ".join(
        f"{way}: worst {worst[way]:+.2f}, mean {np.mean([gain.mean() for gain in own.values()]):+.2f} nats, "
        f"{np.mean([found[way][name].invalid for name in own]):.0%} without a letter"
        for way, own in gains.items()
    )
    return Finding(
        claim="several behaviours survive steering with a layer each, and not merged into one vector",
        baseline=f"best merging on its worst behaviour ({other}): {merging}, {worst[merging]:+.2f} nats",
        measured=f"{text}; difference on the worst {better}",
        verdict=above(Interval(better.value, better.low, better.high), 0.0) if worst[apart] > 0 else "not reproduced",
        numbers={
            "gains": {way: {name: float(gain.mean()) for name, gain in own.items()} for way, own in gains.items()},
            "better": better.as_dict(),
        },
    )


STUDY = Study(
    id="broad-skills",
    title="Broad skills and several behaviours at once",
    paper="2403.05767",
    shrunk="A: 20 texts to fit and 10 to score of either corpus, one layer, three strengths, 4 permutations, means "
    "over tokens; no narrow skill. B: four behaviours, 16 pairs to fit and 6 to test each, asked in both orders; "
    "--full takes 40, 20, five, six, 20, 120 and 40",
    run=run,
    seeds=(0,),
)
