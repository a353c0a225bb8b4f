"""How the cells of an example are computed: the fastest way that gives, for this network, what whole forwards give.

Three ways, from fast to slow: `columns` (the frontier, with the base's keys and values for earlier columns), `layers`
(the frontier on all columns) and `forwards`. Which ones are right for a kind of patch is measured once per network, on
up to three cells of the first sweep.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...host import Host, SiteInfo
from ..hooks import active_sessions
from ..transformers_names import cache_argument, new_cache
from .arguments import CannotSpread
from .blocks import Blocks
from .cells import Cell, part_of
from .examples import Example, Target
from .finish import Finish
from .forwards import forwards
from .frontier import Job, run_wave, waves
from .record import Recording, record

COLUMNS, LAYERS, FORWARDS = "columns", "layers", "forwards"

# What a network may raise that is called in a way it was not made for.
CANNOT = (CannotSpread, TypeError, AttributeError, RuntimeError, ValueError, IndexError, KeyError)


@dataclass
class Known:
    """What was measured of one network: whether its cache takes prompts, and the way for each kind of patch."""

    caches: bool | None = None
    ways: dict[tuple, tuple[str, bool]] | None = None

    def way(self, key: tuple) -> tuple[str, bool] | None:
        return (self.ways or {}).get(key)

    def learn(self, key: tuple, way: str, few: bool) -> None:
        self.ways = {**(self.ways or {}), key: (way, few)}


_KNOWN: weakref.WeakKeyDictionary[nn.Module, Known] = weakref.WeakKeyDictionary()


@dataclass
class Ground:
    """Everything of one example that its cells need."""

    host: Host
    example: Example
    target: Target
    base: Recording
    donors: dict[str, Tensor]
    tokens: int
    # The tokens whose logits are wanted; None for all.
    only: list[int] | None = None

    def __post_init__(self) -> None:
        # How often blocks ran, and on how many tokens.
        self.ran = 0
        self.tokens_run = 0


def why_forwards(host: Host, sites: Sequence[SiteInfo], target: Target) -> str:
    """Why only whole forwards will do, whatever could be measured; empty where nothing speaks against the frontier."""
    if active_sessions():
        return "edits are active"
    outside = next((site.address for site in sites if site.layer is None or site.tower), None)
    if outside is not None:
        return f"{outside} lies outside of the network's own blocks"
    if not host.layers:
        return "the network has no blocks that are known"
    last = f"layers.{host.layers - 1}.out"
    if target.site.address != last and (target.site.rank is None or target.site.rank[0] < host.layers):
        return f"{target.site.address} comes before the end of the blocks"
    return ""


def record_base(host: Host, example: Example, sites: list[SiteInfo], target: Target, calls: bool) -> Recording:
    """The base's run; with keys and values where the network keeps any that can be used again."""
    known = _KNOWN.setdefault(host.module, Known())
    can = calls and host.causal and example.batch is not None and bool(cache_argument(host.accepts))
    if not can or known.caches is False:
        return record(host, example.base, sites, target, calls=calls)
    if known.caches:
        return record(host, example.base, sites, target, calls=True, cache=new_cache())
    plain = record(host, example.base, sites, target, calls=True)
    try:
        found = record(host, example.base, sites, target, calls=True, cache=new_cache())
    except CANNOT:
        found = plain
    # A decoder that attends to an encoder puts that one's keys into the cache too.
    known.caches = len(found.keys_values) == host.layers and _same(host, plain.target, found.target)
    return found if known.caches else plain


def results(ground: Ground, cells: Sequence[Cell], way: str, few: bool) -> Iterator[tuple[list[int], Tensor]]:
    """Numbers of cells and the target of each of them, [cell, position, ...] float32, in parts."""
    if way == FORWARDS:
        size = ground.example.width or 1
        for numbers, values in forwards(
            ground.host, ground.example, ground.target, cells, ground.donors, ground.tokens
        ):
            ground.ran += max(1, ground.host.layers)
            ground.tokens_run += max(1, ground.host.layers) * len(numbers) * size
            yield numbers, narrow(values, ground.only)
        return
    blocks = Blocks(ground.host, ground.example, ground.target, ground.base)
    job = Job(ground.host, blocks, ground.donors, way == COLUMNS)
    finish = Finish(ground.host, blocks, ground.target, few, ground.only)
    for numbers in waves(job, cells, ground.tokens):
        yield from finish(run_wave(job, cells, numbers))
        blocks.forget()
    ground.ran += blocks.ran
    ground.tokens_run += blocks.tokens


def narrow(values: Tensor, only: list[int] | None) -> Tensor:
    """The columns of some tokens, or of all."""
    return values if only is None else values[..., only]


def way_for(ground: Ground, cells: Sequence[Cell]) -> tuple[str, bool]:
    """The way, and whether what comes after the blocks takes the metric's columns alone."""
    known = _KNOWN.setdefault(ground.host.module, Known())
    base, batch = ground.base, ground.example.batch
    can_skip = bool(base.keys_values) and batch is not None and ground.host.causal
    parts = tuple(sorted({part_of(cell.site) for cell in cells}))
    key = (parts, ground.target.site.address, can_skip, ground.only is None)
    found = known.way(key)
    if found is None:
        found = _measured(ground, cells, can_skip)
        known.learn(key, *found)
    return found


def _measured(ground: Ground, cells: Sequence[Cell], can_skip: bool) -> tuple[str, bool]:
    if not ground.base.chained:
        return FORWARDS, False
    few = _few(ground)
    if few is None:
        return FORWARDS, False
    tried = _samples(cells)
    wanted = _gathered(results(ground, tried, FORWARDS, False))
    for way in (COLUMNS, LAYERS) if can_skip else (LAYERS,):
        try:
            got = _gathered(results(ground, tried, way, few))
        except CANNOT:
            continue
        if _same(ground.host, wanted, got):
            return way, few
    return FORWARDS, False


def _few(ground: Ground) -> bool | None:
    """Whether norm and head can be run on some columns alone, or at all (else None), tried on the base's own stream."""
    blocks = Blocks(ground.host, ground.example, ground.target, ground.base)
    for few in (True, False) if ground.target.columns is not None and ground.host.causal else (False,):
        try:
            got = Finish(ground.host, blocks, ground.target, few, ground.only).of_base()
        except CANNOT:
            continue
        if _same(ground.host, narrow(ground.base.target, ground.only), got):
            return few
    return None


def _samples(cells: Sequence[Cell]) -> list[Cell]:
    """The first, the middle and the last cell by layer and column."""
    order = sorted(cells, key=lambda cell: (cell.site.layer or 0, cell.start))
    return [order[index] for index in sorted({0, len(order) // 2, len(order) - 1})]


def _gathered(parts: Iterator[tuple[list[int], Tensor]]) -> Tensor:
    found = {number: row for numbers, values in parts for number, row in zip(numbers, values, strict=True)}
    return torch.stack([found[number] for number in range(len(found))])


def _same(host: Host, wanted: Tensor, got: Tensor) -> bool:
    if wanted.shape != got.shape:
        return False
    tolerance = max(1e-4, 16 * torch.finfo(host.dtype).eps)
    size = wanted.abs().max().clamp(min=1e-12)
    return bool((got - wanted).abs().max() <= tolerance * size)
