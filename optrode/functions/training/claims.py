"""Findings about candidates that were trained under one budget, by rules that are the same in every study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ...parts.statistics import Interval
from ...parts.study import FIGURES, Finding, above, within
from .comparing import gain
from .train import Trained


def better(
    claim: str, candidate: Trained, baseline: Trained, *, margin: float = 0.0, essential: bool = True, beside: str = ""
) -> Finding:
    """The candidate's mean score is better by more than `margin`: the whole interval of the paired difference is."""
    found = gain(candidate, baseline)
    return _finding(claim, candidate, baseline, found, above(found, margin), essential, beside)


def alike(claim: str, candidate: Trained, baseline: Trained, band: float, *, essential: bool = True) -> Finding:
    """Their mean scores differ by at most `band`: the whole interval lies within."""
    found = gain(candidate, baseline)
    return _finding(claim, candidate, baseline, found, within(found, -band, band), essential, f"band {band:g}")


def _finding(
    claim: str, one: Trained, other: Trained, found: Interval, verdict: str, essential: bool, beside: str
) -> Finding:
    measured = f"{one.label} {mean(one)}; gain {found} over {len(one.scores)} seeds"
    return Finding(
        claim, f"{other.label} {mean(other)}", measured + (f" ({beside})" if beside else ""), verdict, essential,
        {"gain": asdict(found)},
    )  # fmt: skip


def mean(trained: Trained) -> str:
    """The mean score as a study shows it."""
    return f"{np.mean(trained.scores):.4g}"


def listed(trained: Sequence[Trained]) -> str:
    """Mean scores, best first."""
    ordered = sorted(trained, key=lambda one: np.mean(one.scores), reverse=trained[0].higher)
    return ", ".join(f"{one.label} {mean(one)}" for one in ordered)


def numbers(trained: Sequence[Trained]) -> dict[str, Any]:
    """What a result keeps of the candidates: rates, scores and health, by label."""
    return {one.label: {k: v for k, v in one.as_dict().items() if k != "label"} for one in trained}


def table(claim: str, trained: Sequence[Trained]) -> Finding:
    """All candidates in one line, for reading: figures without a verdict."""
    rates = sorted({rate for one in trained for rate in one.tuning})
    rate = "the rate tuned for each" if len(rates) > 1 else f"one rate for all, {rates[0]:g}"
    return Finding(claim, f"{len(trained[0].scores)} seeds each, {rate}", listed(trained), FIGURES, False,
                   numbers(trained))  # fmt: skip
