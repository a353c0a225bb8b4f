"""Choosing layer and strength on the tuning split, the same way and with the same number of trials for every method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..edits.base import Edit
from ..errors import NotFinite


@dataclass(frozen=True)
class Trial:
    """One trial: where, how strong, what it did on the tuning split, and whether its damage stayed within the budget.

    `damage` is None where it was not measured because the effect was no improvement.
    """

    layer: int
    strength: float
    effect: float
    damage: float | None
    within: bool


@dataclass(frozen=True)
class Tuned:
    """The best trial within the budget, and all trials."""

    best: Trial
    trials: tuple[Trial, ...]


def tune(
    edits: dict[int, Edit],
    strengths: Sequence[float],
    effect: Callable[[Edit], float],
    damage: Callable[[Edit], float],
    budget: float,
    *,
    measure_all: bool = True,
) -> Tuned:
    """Largest effect whose damage is at most `budget`, over layers and strengths.

    `edits` holds one edit of strength 1 per layer. With `measure_all=False` damage is measured only where the effect
    would be the best so far: the choice is the same, for less work. A trial that makes NaN counts as over budget. If
    every trial is over budget, the weakest strength with the least damage is chosen and marked as not within.
    """
    trials: list[Trial] = []
    best: Trial | None = None
    for layer, edit in edits.items():
        for strength in strengths:
            trial = _try(edit * strength, layer, strength, effect, damage, budget, best, measure_all)
            trials.append(trial)
            if trial.within and (best is None or trial.effect > best.effect):
                best = trial
    if best is None:
        measured = [trial for trial in trials if trial.damage is not None]
        best = min(measured or trials, key=lambda trial: trial.damage if trial.damage is not None else float("inf"))
    return Tuned(best, tuple(trials))


def _try(
    edit: Edit,
    layer: int,
    strength: float,
    effect: Callable[[Edit], float],
    damage: Callable[[Edit], float],
    budget: float,
    best: Trial | None,
    measure_all: bool,
) -> Trial:
    try:
        wanted = effect(edit)
        if not measure_all and best is not None and wanted <= best.effect:
            return Trial(layer, strength, wanted, None, False)
        cost = damage(edit)
    except NotFinite:
        return Trial(layer, strength, float("nan"), float("inf"), False)
    return Trial(layer, strength, wanted, cost, cost <= budget)
