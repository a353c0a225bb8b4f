"""Studies: the smallest honest experiment for one published claim, on a real small model, with controls and seeds.

Its `run` gives findings: claim, baseline, what was measured with an interval over seeds or items, and the verdict that
follows from the numbers by a rule stated before the run. A finding that contradicts the paper is a result like any
other. The studies themselves, and what runs them, are in `optrode.studies`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..engine.progress import Steps
from ..errors import BadInput, did_you_mean
from .statistics import Interval

VERDICTS = ("reproduced", "direction only", "not reproduced")
# What a line has in place of a verdict that claims nothing: it lists figures, and cannot fail.
FIGURES = "figures"


@dataclass(frozen=True)
class Finding:
    """One line of a study. `essential` findings decide the study's verdict; others are reported beside them, among them
    lines of figures that claim nothing (`FIGURES`)."""

    claim: str
    baseline: str
    measured: str
    verdict: str
    essential: bool = True
    numbers: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.verdict == FIGURES and not self.essential:
            return
        if self.verdict not in VERDICTS:
            raise BadInput(f"verdict '{self.verdict}' is none: {did_you_mean(self.verdict, VERDICTS)}")


@dataclass(frozen=True)
class Study:
    """A study of one row. `shrunk` says what is smaller than the card asks for; `run(seeds, full, steps)` does it."""

    id: str
    title: str
    paper: str
    shrunk: str
    run: Callable[[Sequence[int], bool, Steps], list[Finding]]
    seeds: tuple[int, ...] = (0, 1, 2)


def above(measured: Interval, threshold: float, *, neutral: float = 0.0) -> str:
    """Verdict on "larger than `threshold`": the whole interval above it; above `neutral` only; or neither.

    >>> above(Interval(2.0, 1.5, 2.5), threshold=1.0)
    'reproduced'
    """
    if measured.low > threshold:
        return "reproduced"
    return "direction only" if measured.low > neutral else "not reproduced"


def within(measured: Interval, low: float, high: float) -> str:
    """Verdict on "about the same": the whole interval inside the band, its value only, or neither."""
    if low <= measured.low and measured.high <= high:
        return "reproduced"
    return "direction only" if low <= measured.value <= high else "not reproduced"


def overall(findings: Sequence[Finding]) -> str:
    """The weakest verdict among the essential findings."""
    essential = [finding for finding in findings if finding.essential] or list(findings)
    return max((finding.verdict for finding in essential), key=VERDICTS.index)
