"""Intervals for comparisons: bootstrap over items, by group where items share one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from ..errors import BadInput

RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A value with its 95% interval."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


def bootstrap_mean(
    values: Sequence[float] | np.ndarray, *, groups: Sequence[str] | None = None, seed: int = 0, level: float = 0.95
) -> Interval:
    """Mean with a percentile bootstrap interval over items, or over whole groups of items that belong together.

    Raises `BadInput` when there is no value or one is not finite.

    >>> interval = bootstrap_mean([1.0, 2.0, 3.0, 4.0])
    >>> interval.low < interval.value == 2.5 < interval.high
    True
    """
    data = np.asarray(values, dtype=float)
    if data.size == 0 or not np.isfinite(data).all():
        raise BadInput("an interval needs at least one value, all of them finite")
    sums, counts = _by_group(data, groups)
    chosen = np.random.default_rng(seed).integers(0, len(sums), size=(RESAMPLES, len(sums)))
    means = sums[chosen].sum(1) / counts[chosen].sum(1)
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(data.mean()), float(low), float(high))


def bootstrap_ratio(
    above: Sequence[float] | np.ndarray, below: Sequence[float] | np.ndarray, *, seed: int = 0
) -> Interval:
    """exp(mean(above) - mean(below)) of paired values with an interval over the pairs.

    With mean negative log-probabilities this is a ratio of perplexities.
    """
    difference = bootstrap_mean(np.asarray(above, float) - np.asarray(below, float), seed=seed)
    return Interval(*(float(np.exp(part)) for part in (difference.value, difference.low, difference.high)))


def interval_over_seeds(values: Sequence[float]) -> Interval:
    """Mean over seeds with a Student t interval; with one seed the interval is as wide as can be told: none."""
    from scipy.stats import t

    data = np.asarray(values, dtype=float)
    if data.size == 0:
        raise BadInput("an interval over seeds needs at least one seed")
    mean = float(data.mean())
    if data.size == 1:
        return Interval(mean, float("-inf"), float("inf"))
    half = float(t.ppf(0.975, data.size - 1) * data.std(ddof=1) / np.sqrt(data.size))
    return Interval(mean, mean - half, mean + half)


def _by_group(data: np.ndarray, groups: Sequence[str] | None) -> tuple[np.ndarray, np.ndarray]:
    if groups is None:
        return data, np.ones_like(data)
    if len(groups) != len(data):
        raise BadInput(f"{len(data)} values were given with {len(groups)} groups: give one group for each")
    names = sorted(set(groups))
    index = np.array([names.index(group) for group in groups])
    return np.bincount(index, weights=data), np.bincount(index).astype(float)
