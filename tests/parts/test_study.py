"""The rules by which numbers become verdicts."""

from __future__ import annotations

import pytest

from optrode.errors import BadInput
from optrode.parts.statistics import Interval
from optrode.parts.study import VERDICTS, Finding, above, overall, within


@pytest.mark.parametrize(
    ("low", "high", "threshold", "neutral", "verdict"),
    [
        (1.1, 3, 1.0, 0.0, "reproduced"),
        (1.0, 3, 1.0, 0.0, "direction only"),  # the bound itself is not above
        (0.5, 3, 1.0, 0.0, "direction only"),
        (0.0, 3, 1.0, 0.0, "not reproduced"),
        (-1.0, 9, 1.0, 0.0, "not reproduced"),
        (0.6, 9, 0.9, 0.5, "direction only"),
        (0.4, 9, 0.9, 0.5, "not reproduced"),
        (float("-inf"), float("inf"), 0.0, 0.0, "not reproduced"),  # what one seed can tell
    ],
)
def test_above(low, high, threshold, neutral, verdict):
    assert above(Interval((low + high) / 2, low, high), threshold, neutral=neutral) == verdict


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        (Interval(1.0, 0.9, 1.1), "reproduced"),
        (Interval(1.0, 0.8, 1.2), "reproduced"),  # the band's ends belong to it
        (Interval(1.0, 0.7, 1.1), "direction only"),
        (Interval(1.15, 1.1, 1.3), "direction only"),
        (Interval(1.3, 1.1, 1.5), "not reproduced"),
    ],
)
def test_within(interval, verdict):
    assert within(interval, 0.8, 1.2) == verdict


def finding(verdict: str, essential: bool = True) -> Finding:
    return Finding("claim", "baseline", "measured", verdict, essential)


def test_the_weakest_essential_finding_decides():
    assert overall([finding("reproduced"), finding("direction only")]) == "direction only"
    assert overall([finding("not reproduced"), finding("reproduced")]) == "not reproduced"
    assert overall([finding("reproduced"), finding("not reproduced", essential=False)]) == "reproduced"
    assert overall([finding("direction only", essential=False)]) == "direction only"
    assert VERDICTS.index("reproduced") == 0


def test_a_verdict_of_another_name_is_refused():
    with pytest.raises(BadInput, match="did you mean reproduced"):
        finding("reprodced")


def test_a_line_of_figures_has_no_verdict_and_decides_nothing():
    figures = Finding("All", "3 seeds", "a 1, b 2", "figures", essential=False)
    assert overall([figures, Finding("c", "b", "m", "direction only")]) == "direction only"
    with pytest.raises(BadInput, match="verdict 'figures' is none"):
        Finding("All", "3 seeds", "a 1", "figures")
