"""Intervals against simulation: what says 95% must hold the truth about that often, with groups too."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from optrode.errors import BadInput
from optrode.parts.statistics import Interval, bootstrap_mean, bootstrap_ratio, interval_over_seeds


def coverage(draw, interval, truth: float, times: int = 300) -> float:
    random = np.random.default_rng(0)
    held = 0
    for number in range(times):
        found = interval(draw(random), number)
        held += found.low <= truth <= found.high
    return held / times


def test_the_interval_of_a_mean_holds_the_truth_95_percent_of_the_time():
    share = coverage(lambda random: random.normal(0.3, 1.0, 60), lambda data, n: bootstrap_mean(data, seed=n), 0.3)
    assert 0.91 <= share <= 0.98


def test_items_of_one_group_do_not_count_as_independent():
    """Twelve groups of ten that share their group's luck: the plain interval is far too narrow, the grouped is not."""
    names = np.repeat([f"g{n}" for n in range(12)], 10).tolist()

    def draw(random):
        return np.repeat(random.normal(0, 1, 12), 10) + random.normal(0, 0.3, 120)

    grouped = coverage(draw, lambda data, n: bootstrap_mean(data, groups=names, seed=n), 0.0)
    plain = coverage(draw, lambda data, n: bootstrap_mean(data, seed=n), 0.0)
    assert 0.86 <= grouped <= 0.98 and plain < 0.6


def test_a_grouped_mean_is_that_of_the_items_and_not_of_the_groups():
    found = bootstrap_mean([1.0, 1.0, 1.0, 5.0], groups=["a", "a", "a", "b"])
    assert found.value == 2.0 and (found.low, found.high) == (1.0, 5.0)


def test_groups_of_one_are_items():
    data = np.random.default_rng(1).normal(size=30)
    # The same draws of places, since names that sort as the items stand keep their order.
    named = bootstrap_mean(data, groups=[f"{n:02}" for n in range(30)])
    assert named == bootstrap_mean(data)


def test_a_level_and_a_seed():
    data = np.random.default_rng(2).normal(size=50)
    narrow, wide = bootstrap_mean(data, level=0.5), bootstrap_mean(data, level=0.99)
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high
    assert bootstrap_mean(data, seed=1) == bootstrap_mean(data, seed=1) != bootstrap_mean(data, seed=2)


def test_it_agrees_with_scipys_bootstrap():
    data = np.random.default_rng(3).exponential(size=80)
    theirs = stats.bootstrap((data,), np.mean, method="percentile", n_resamples=5000, random_state=0)
    ours = bootstrap_mean(data)
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.03)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.03)


def test_a_ratio_of_perplexities_by_hand():
    above, below = [2.0, 3.0, 2.5], [1.9, 2.7, 2.6]
    found = bootstrap_ratio(above, below)
    assert found.value == pytest.approx(np.exp(0.3 / 3)) and found.low <= found.value <= found.high
    assert bootstrap_ratio(below, below) == Interval(1.0, 1.0, 1.0)
    assert bootstrap_ratio(below, above).low == pytest.approx(1 / found.high)


def test_an_interval_over_seeds_is_students():
    data = [0.2, 0.5, 0.3, 0.9]
    low, high = stats.t.interval(0.95, 3, loc=np.mean(data), scale=stats.sem(data))
    found = interval_over_seeds(data)
    assert (found.value, found.low, found.high) == pytest.approx((np.mean(data), low, high))
    one = interval_over_seeds([0.4])
    assert (one.value, one.low, one.high) == (0.4, -np.inf, np.inf)


@pytest.mark.parametrize("data", [[], [1.0, np.nan], [np.inf]])
def test_data_that_has_no_mean_is_refused(data):
    with pytest.raises(BadInput, match="all of them finite"):
        bootstrap_mean(data)


def test_other_mistakes_are_refused():
    with pytest.raises(BadInput, match="one group for each"):
        bootstrap_mean([1.0, 2.0], groups=["a"])
    with pytest.raises(BadInput, match="at least one seed"):
        interval_over_seeds([])


def test_an_interval_prints_and_is_plain():
    assert str(Interval(0.1234, -1, 2)) == "0.123 [-1, 2]"
    assert Interval(1, 2, 3).as_dict() == {"value": 1, "low": 2, "high": 3}
