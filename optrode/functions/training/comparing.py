"""What can be said of candidates trained under one budget: differences, ranks, and whether the ranks mean much."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from ...errors import BadInput
from ...parts.statistics import Interval, interval_over_seeds
from .train import Trained


def gain(candidate: Trained, baseline: Trained) -> Interval:
    """Mean paired difference over seeds, positive where the candidate is better; Student's t interval."""
    _alike([candidate, baseline])
    sign = 1 if candidate.higher else -1
    return interval_over_seeds([sign * (a - b) for a, b in zip(candidate.scores, baseline.scores, strict=True)])


def ranks(trained: Sequence[Trained]) -> np.ndarray:
    """[seed, candidate] ranks, 1 for the best; ties share their mean rank."""
    from scipy.stats import rankdata

    return np.stack([rankdata(-row) for row in _scores(trained)])  # type: ignore[no-any-return]


def agreement(trained: Sequence[Trained]) -> float:
    """Mean Spearman correlation of the candidates' scores between two seeds; 0 where one seed cannot tell them apart.

    Raises `BadInput` for one seed or fewer than three candidates.
    """
    from scipy.stats import spearmanr

    rows = _scores(trained)
    if len(rows) < 2 or rows.shape[1] < 3:
        raise BadInput("ranks can be compared for at least two seeds and three candidates")
    found = [spearmanr(a, b).statistic if np.ptp(a) and np.ptp(b) else 0.0 for a, b in combinations(rows, 2)]
    return float(np.mean(found))


def first(trained: Sequence[Trained], *, seed: int = 0, draws: int = 2000) -> dict[str, float]:
    """Probability of each candidate to have the best mean, seeds drawn with replacement; ties share."""
    rows = _scores(trained)
    chosen = np.random.default_rng(seed).integers(0, len(rows), size=(draws, len(rows)))
    means = rows[chosen].mean(1)
    top = means == means.max(1, keepdims=True)
    shares = (top / top.sum(1, keepdims=True)).mean(0)
    return {one.label: float(share) for one, share in zip(trained, shares, strict=True)}


def _scores(trained: Sequence[Trained]) -> np.ndarray:
    """[seed, candidate], larger is better."""
    _alike(trained)
    sign = 1 if trained[0].higher else -1
    return sign * np.array([one.scores for one in trained], dtype=float).T


def _alike(trained: Sequence[Trained]) -> None:
    if len({(one.task, len(one.scores)) for one in trained}) != 1:
        raise BadInput("candidates were trained on different tasks or with different numbers of seeds")
