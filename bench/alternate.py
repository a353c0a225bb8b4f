"""Paired timing: every variant once a round, in a changing order, so that a slow spell of the machine hits all alike.

What is reported is a ratio to one variant of the same round. Seconds are shown for scale only.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One variant: median seconds (or what `Result.unit` says); median, least and largest ratio to the reference."""

    name: str
    seconds: float
    ratio: float
    low: float
    high: float
    rounds: int


@dataclass(frozen=True)
class Target:
    """A bound on a ratio, and whether the median keeps it."""

    what: str
    limit: float
    measured: float
    met: bool


def at_most(what: str, limit: float, measured: float) -> Target:
    return Target(what, limit, round(measured, 3), measured <= limit)


def at_least(what: str, limit: float, measured: float) -> Target:
    return Target(what, limit, round(measured, 2), measured >= limit)


@dataclass(frozen=True)
class Result:
    """One benchmark: its rows, the targets they were held to, and what a reader must know."""

    title: str
    reference: str
    rows: list[Row]
    targets: list[Target]
    notes: list[str]
    unit: str = "s"

    def ratio(self, name: str) -> float:
        return next(row.ratio for row in self.rows if row.name == name)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def alternate(
    variants: dict[str, Callable[[], Any]], reference: str, rounds: int = 5, warm: int = 1, say: Callable = print
) -> list[Row]:
    """Time every variant `rounds` times, alternating, and give the ratios to `reference`."""
    for _ in range(warm):
        for run in variants.values():
            run()
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds):
        for name in _order(list(variants), number):
            seconds[name].append(_timed(variants[name]))
        say(f"  round {number + 1} of {rounds}: " + ", ".join(f"{n} {s[-1]:.2f} s" for n, s in seconds.items()))
    return [_row(name, seconds[name], seconds[reference]) for name in variants]


def _order(names: list[str], number: int) -> list[str]:
    """Another beginning each round, and every second round backwards."""
    start = number % len(names)
    turned = names[start:] + names[:start]
    return turned[::-1] if number % 2 else turned


def _timed(run: Callable[[], Any]) -> float:
    gc.collect()
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _row(name: str, own: list[float], reference: list[float]) -> Row:
    ratios = [mine / other for mine, other in zip(own, reference, strict=True)]
    middle = statistics.median(ratios)
    return Row(name, *(round(x, 4) for x in (statistics.median(own), middle, min(ratios), max(ratios))), len(own))
