"""An exact sweep: the stream after each of 30 blocks at each of 14 positions, one patch at a time, 420 cells.

Peers run one forward a patch (or many rows in one forward); a part of their cells is timed and the time scaled up to
420, which every cell costs alike. optrode and the hand-written loop are timed whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch

import optrode as op

from . import handwritten
from .alternate import Result, Row, at_least, at_most
from .peers import nnsight_peer, transformer_lens_peer
from .subject import ANSWERS, BASE, DONOR, LAYERS, Subject, subject

HAND = "hand-written, one sweep through the blocks"
NAIVE_TIMES, BATCHED_TIMES, HAND_LIMIT = 30.0, 8.0, 1.3
INVOKES = 32


def ours(own: Subject) -> Any:
    metric = op.metrics.LogitDifference(*ANSWERS)
    return op.sweep(own.model, BASE, DONOR, "layers.*.out", metric=metric, template="raw")


def measure(rounds: int = 5) -> Result:
    own = subject()
    positions = own.base.shape[1]
    cells = [(layer, position) for layer in range(LAYERS) for position in range(positions)]
    # One of each fifteen cells, spread over layers and positions; for batched invokes, two traces' worth.
    few, many = cells[::15], cells[:: len(cells) // (2 * INVOKES)][: 2 * INVOKES]
    theirs, lens = nnsight_peer.donor_residuals(own), transformer_lens_peer.donor_residuals(own)
    _check(own, theirs, few, positions)
    first, second = own.answers
    variants: dict[str, tuple[Callable[[], Any], float]] = {
        HAND: (lambda: handwritten.sweep(own.network, own.base, own.donor, first, second), 1.0),
        "optrode": (lambda: ours(own), 1.0),
        "nnsight, one trace a patch": (lambda: nnsight_peer.patches(own, theirs, few), len(cells) / len(few)),
        f"nnsight, {INVOKES} invokes a trace": (
            lambda: nnsight_peer.batched_patches(own, theirs, many, INVOKES),
            len(cells) / len(many),
        ),
        "TransformerLens, one forward a patch": (
            lambda: transformer_lens_peer.patches(own, lens, few),
            len(cells) / len(few),
        ),
    }
    for run, _ in variants.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds):
        for name in list(variants)[:: -1 if number % 2 else 1]:
            run, scale = variants[name]
            start = time.perf_counter()
            run()
            seconds[name].append(scale * (time.perf_counter() - start))
        print(f"  round {number + 1} of {rounds}: " + ", ".join(f"{name} {s[-1]:.2f} s" for name, s in seconds.items()))
    rows = [_row(name, own_seconds, seconds[HAND]) for name, own_seconds in seconds.items()]
    result = Result(f"Exact sweep, {len(cells)} patches", HAND, rows, [], [])
    result.targets.append(at_most("optrode against the hand-written loop", HAND_LIMIT, result.ratio("optrode")))
    naive = min(_times(seconds, name) for name in seconds if "a patch" in name)
    result.targets.append(at_least("times faster than the fastest peer's naive loop", NAIVE_TIMES, naive))
    batched = _times(seconds, f"nnsight, {INVOKES} invokes a trace")
    result.targets.append(at_least("times faster than nnsight's batched invokes", BATCHED_TIMES, batched))
    result.notes.append(
        f"Of the peers' 420 cells {len(few)} were timed ({len(many)} with batched invokes) and scaled up."
    )
    return result


def _times(seconds: dict[str, list[float]], name: str) -> float:
    return median(theirs / mine for theirs, mine in zip(seconds[name], seconds["optrode"], strict=True))


def _row(name: str, own: list[float], reference: list[float]) -> Row:
    ratios = [mine / other for mine, other in zip(own, reference, strict=True)]
    return Row(name, *(round(x, 4) for x in (median(own), median(ratios), min(ratios), max(ratios))), len(own))


def _check(own: Subject, donors: Any, cells: list[tuple[int, int]], positions: int) -> None:
    """The same numbers from all, before anyone is timed."""
    mine = torch.as_tensor(ours(own).values).reshape(LAYERS, positions).double()
    first, second = own.answers
    by_hand = handwritten.sweep(own.network, own.base, own.donor, first, second).double()
    theirs = torch.tensor(nnsight_peer.patches(own, donors, cells)).double()
    torch.testing.assert_close(mine, by_hand, rtol=0, atol=1e-3)
    torch.testing.assert_close(torch.stack([mine[cell] for cell in cells]), theirs, rtol=0, atol=1e-3)
