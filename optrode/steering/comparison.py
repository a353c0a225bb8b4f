"""The steering protocol: every method fitted on the same pairs, tuned with the same trials, tested once.

Fit, tune and test items share no subject. Layer and strength of each method are chosen on the tuning split, as the
largest forced-choice effect whose damage to neutral text stays within the budget; the test split then gives the
figures. Random directions go through the same search, so that their spread shows what searching alone finds.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from ..data import Behaviour, Pair, neutral_texts
from ..edits.base import Edit
from ..engine.progress import Steps
from ..errors import BadInput
from ..model import Model
from ..parts.bench import Neutral, Written, distinct_bigrams, fluency, maybe_edited, rewrites_prompt, write_replies
from ..parts.choice import ForcedChoice
from ..parts.discovery import find_method
from ..parts.judge import Judge, RuleJudge, fit_judge, rule_judge
from ..parts.metrics.effects import SideEffects
from ..parts.pairs import conversation
from ..parts.probe import accuracy_by_layer
from ..parts.statistics import bootstrap_mean, bootstrap_ratio
from ..parts.tuner import tune
from ..stats import massive_by_layer, stream_norms
from .fitting import (
    FULL,
    QUICK,
    RANDOM_ID,
    Candidate,
    Reader,
    Settings,
    Size,
    chosen_methods,
    fit_all,
    offered_layers,
    spread,
)
from .protocol import DirectionMethod
from .verdict import describe_model, describe_protocol, headline, rank, search_entries, unsteered_row, warnings_of


class Bench:
    """Everything that all candidates are measured with, prepared once on the unedited model."""

    def __init__(self, model: Model, behaviour: Behaviour, settings: Settings, layers: list[int]):
        size = settings.size
        passages = neutral_texts(2 * size.neutral)
        # An edit at a block's input resumes at that block, one at its output at the next.
        resume_at = sorted({*layers, *(layer + 1 for layer in layers)})
        self.model = model
        self.behaviour = behaviour
        self.tune = ForcedChoice(model, spread(behaviour.tune, size.tune), resume_at)
        self.test = ForcedChoice(model, spread(behaviour.test, size.test), resume_at)
        self.tune_neutral = Neutral(model, passages[: size.neutral], resume_at)
        self.test_neutral = Neutral(model, passages[size.neutral :], resume_at)
        self.judge: Judge | RuleJudge = rule_judge(behaviour) if behaviour.rule else fit_judge(behaviour.judge)
        self.questions = spread(behaviour.questions, size.written)
        self.new_tokens = size.new_tokens
        self.base_tune = self.tune.ask().numpy()
        self.base_test = self.test.ask().numpy()
        self.base_written = write_replies(model, self.questions, None, new_tokens=size.new_tokens)
        self.base_judged = self.judged(self.base_written)
        self.base_fluency = fluency(model, self.base_written)
        self.effects = _side_effects(model, behaviour, settings, resume_at)
        self.base_effects = self.effects.columns(None, self.base_written) if self.effects else {}
        self.sign = _sign(settings.direction, float(self.base_judged.mean()))

    def effect(self, edit: Edit) -> float:
        """Forced-choice shift on the tuning split, in the wanted direction, nats."""
        return float(self.log_odds(edit, self.tune, self.base_tune).mean())

    def damage(self, edit: Edit) -> float:
        """Perplexity ratio on the tuning passages."""
        return self.tune_neutral.perplexity_ratio(edit)

    def log_odds(self, edit: Edit, asked: ForcedChoice, base: np.ndarray) -> np.ndarray:
        with maybe_edited(self.model, edit):
            return self.sign * (asked.ask(fresh=rewrites_prompt(edit)).numpy() - base)

    def write(self, edit: Edit) -> Written:
        return write_replies(self.model, self.questions, edit, new_tokens=self.new_tokens)

    def judged(self, written: Written) -> np.ndarray:
        """How far each reply shows the behaviour, from 0 to 1."""
        if isinstance(self.judge, RuleJudge):
            return self.judge(written.replies, written.prompts)
        return self.judge(written.replies)

    def shift(self, written: Written) -> np.ndarray:
        """Judged shift of freely written replies, in the wanted direction, as a difference of probabilities."""
        return self.sign * (self.judged(written) - self.base_judged)


def _side_effects(model: Model, behaviour: Behaviour, settings: Settings, layers: Sequence[int]) -> SideEffects | None:
    """What side effects are measured with, where the size asks for them."""
    size = settings.size
    if not size.capability:
        return None
    return SideEffects(
        model, behaviour.name, questions=size.capability, choices=size.off_target, requests=size.requests,
        new_tokens=size.new_tokens, layers=layers, seed=settings.seed,
    )  # fmt: skip


def run(model: Model, behaviour: Behaviour, settings: Settings) -> tuple[dict[str, Any], Edit | None]:
    """The comparison as plain data (see `optrode.report`), and the best fitted edit.

    Raises `BadInput` when the behaviour is too small, and whatever a method raises.
    """
    size = settings.size
    layers = offered_layers(model, size.layers)
    # A misspelt method is told before anything is measured.
    chosen_methods(settings, 1)
    fitted_on = replace(behaviour, fit=spread(behaviour.fit, size.pairs))
    with Steps("comparing steering methods") as steps:
        steps.at("measuring the unedited model")
        bench = Bench(model, behaviour, settings, layers)
        reader = Reader(model, fitted_on)
        candidates = fit_all(model, fitted_on, settings, layers, bench.sign, reader, steps)
        for candidate in steps.each(candidates, lambda found: f"tuning {found.title}"):
            _tune(candidate, bench, settings)
        rows = [
            _test(candidate, bench, settings)
            for candidate in steps.each(candidates, lambda found: f"testing {found.title}")
        ]
        control = _random_control(bench, settings, layers, reader, steps)
        steps.at("curves and probes")
        dose = [point for candidate in candidates for point in _dose(candidate, bench, settings)]
        about = _about_the_stream(model, fitted_on.fit, reader, steps)
    ranked = rank([*rows, *([control] if control else [])], bench.judge.trusted)
    titles = {candidate.title: candidate for candidate in candidates}
    best = next((titles[row["method"]].edit for row in ranked if row["kind"] == "method"), None)
    result = {
        "schema": "optrode.comparison/1",
        "family": "steering",
        "title": f"Steering {behaviour.name} in {model.name}",
        "headline": headline(ranked, bench, settings),
        "warnings": warnings_of(ranked, bench, settings),
        "model": describe_model(model),
        "data": {
            "name": behaviour.name,
            "description": behaviour.description,
            "sizes": {"fit": len(fitted_on.fit), "tune": len(bench.tune.choices), "test": len(bench.test.choices)},
        },
        "protocol": describe_protocol(bench, settings, layers),
        "rows": [*ranked, unsteered_row(bench)],
        "search": [entry for candidate in candidates for entry in search_entries(candidate)],
        "dose": dose,
        **about,
    }
    return result, best


def _sign(direction: str, judged: float) -> int:
    if direction not in ("auto", "for", "against"):
        raise BadInput(f"direction '{direction}' is not known: use for, against or auto")
    if direction == "auto":
        return -1 if judged > 0.5 else 1
    return 1 if direction == "for" else -1


# Measuring ------------------------------------------------------------------------------------------------------------


def _tune(candidate: Candidate, bench: Bench, settings: Settings, *, measure_all: bool = True) -> None:
    if candidate.method.role == "baseline":
        return
    started = time.perf_counter()
    strengths = [strength * candidate.method.strength_scale for strength in settings.size.strengths]
    candidate.tuned = tune(
        candidate.edits, strengths, bench.effect, bench.damage, settings.budget, measure_all=measure_all
    )
    candidate.seconds_tune = time.perf_counter() - started


def _test(candidate: Candidate, bench: Bench, settings: Settings) -> dict[str, Any]:
    edit, best = candidate.edit, candidate.tuned.best if candidate.tuned else None
    groups = bench.test.groups
    written = bench.write(edit)
    nll, kl = bench.test_neutral.measure(edit)
    ratio = bootstrap_ratio(nll, bench.test_neutral.base_nll, seed=settings.seed)
    shift = bench.shift(written)
    return {
        "method": candidate.title,
        "id": candidate.method.id,
        "kind": candidate.method.role,
        "layer": best.layer if best else None,
        "strength": best.strength if best else None,
        "shift": bootstrap_mean(shift, groups=_groups(bench), seed=settings.seed).as_dict(),
        "log_odds": bootstrap_mean(
            bench.log_odds(edit, bench.test, bench.base_test), groups=groups, seed=settings.seed
        ).as_dict(),
        "perplexity_ratio": ratio.as_dict(),
        "completion_perplexity_ratio": bootstrap_ratio(
            fluency(bench.model, written), bench.base_fluency, seed=settings.seed
        ).as_dict(),
        "distinct_bigrams": round(distinct_bigrams(written.replies), 3),
        **(bench.effects.columns(edit, written) if bench.effects else {}),
        "kl_neutral": bootstrap_mean(kl, seed=settings.seed).as_dict(),
        "seconds_fit": round(candidate.seconds_fit, 2),
        "seconds_tune": round(candidate.seconds_tune, 2),
        "tokens_per_second": round(written.tokens / written.seconds, 1),
        "within_budget": bool(best.within if best else ratio.value <= settings.budget),
        "completions": _completions(bench, written),
        "edit_file": None,
    }


def _groups(bench: Bench) -> list[str]:
    return [question.group for question in bench.questions]


def _completions(bench: Bench, written: Written, count: int = 3) -> list[dict[str, str]]:
    step = max(1, len(written.prompts) // count)
    return [
        {"prompt": written.prompts[i], "unsteered": bench.base_written.replies[i], "steered": written.replies[i]}
        for i in range(0, len(written.prompts), step)
    ][:count]


def _random_control(
    bench: Bench, settings: Settings, layers: list[int], reader: Reader, steps: Steps
) -> dict[str, Any] | None:
    """Random directions through the same search: one row whose spread is the luck of searching."""
    if not settings.size.random_directions or (settings.methods and RANDOM_ID not in settings.methods):
        return None
    kind = find_method(__package__ or "optrode.steering", RANDOM_ID)
    shifts, odds, seconds = [], [], 0.0
    for number in steps.each(range(settings.size.random_directions), lambda n: f"random direction {n + 1}"):
        method = kind(seed=1000 * settings.seed + number)
        contrast, _ = reader.contrast(method)
        candidate = Candidate(method, method.label, method.fit_contrast(bench.model, contrast, layers), 0.0)
        _tune(candidate, bench, settings, measure_all=False)
        seconds += candidate.seconds_tune
        shifts.append(float(bench.shift(bench.write(candidate.edit)).mean()))
        odds.append(float(bench.log_odds(candidate.edit, bench.test, bench.base_test).mean()))
    return {
        "method": f"random direction ({len(shifts)})",
        "id": RANDOM_ID,
        "kind": "control",
        "layer": None,
        "strength": None,
        "shift": _spread_interval(shifts),
        "log_odds": _spread_interval(odds),
        "perplexity_ratio": None,
        "kl_neutral": None,
        "seconds_fit": None,
        "seconds_tune": round(seconds / len(shifts), 2),
        "tokens_per_second": None,
        "within_budget": True,
        "completions": [],
        "edit_file": None,
        "spread": {**_quantiles(shifts), "best": max(shifts), "count": len(shifts), "values": shifts},
        "spread_log_odds": {**_quantiles(odds), "best": max(odds), "count": len(odds), "values": odds},
    }


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    p05, p50, p95 = np.quantile(values, [0.05, 0.5, 0.95])
    return {"p05": float(p05), "p50": float(p50), "p95": float(p95)}


def _spread_interval(values: Sequence[float]) -> dict[str, float]:
    """Mean of the directions with their own 5th to 95th percentile: a spread, not an interval of the mean."""
    found = _quantiles(values)
    return {"value": float(np.mean(values)), "low": found["p05"], "high": found["p95"]}


def _dose(candidate: Candidate, bench: Bench, settings: Settings) -> list[dict[str, Any]]:
    """Effect and damage along strength at the chosen layer, on the test split."""
    if candidate.tuned is None:
        strengths: list[float | None] = [None]
    else:
        strengths = [strength * candidate.method.strength_scale for strength in settings.size.strengths]
    points = []
    for strength in strengths:
        edit = (
            candidate.edit
            if strength is None or candidate.tuned is None
            else (candidate.edits[candidate.tuned.best.layer] * strength)
        )
        odds = bench.log_odds(edit, bench.test, bench.base_test)
        nll, kl = bench.test_neutral.measure(edit)
        points.append(
            {
                "method": candidate.title,
                "strength": strength,
                "log_odds": bootstrap_mean(odds, groups=bench.test.groups, seed=settings.seed).as_dict(),
                "shift": None,
                "kl_neutral": bootstrap_mean(kl, seed=settings.seed).as_dict(),
                "perplexity_ratio": bootstrap_ratio(nll, bench.test_neutral.base_nll, seed=settings.seed).as_dict(),
            }
        )
    return points


def _about_the_stream(model: Model, pairs: Sequence[Pair], reader: Reader, steps: Steps) -> dict[str, Any]:
    """Probe accuracy, norms and massive activations by layer, from the fit split."""
    sites = [f"layers.{layer}.out" for layer in range(model.layers)]
    contrast, _ = reader.contrast(DirectionMethod())
    steps.at("probing every layer")
    acts = model.read([conversation(pair.prompt, pair.positive) for pair in pairs[:8]], sites)
    assert acts.batch is not None
    mask = acts.batch.mask
    return {
        "probe_accuracy": accuracy_by_layer(contrast, sites),
        "norms": [{"layer": layer, **stream_norms(acts[site], mask)} for layer, site in enumerate(sites)],
        "massive": [asdict(found) for found in massive_by_layer(acts, per_layer=2)],
    }


__all__ = ["FULL", "QUICK", "Bench", "Settings", "Size", "run"]
