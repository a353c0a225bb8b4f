"""The frontier: all patched rows go through the blocks together, each from the block and column of its patch on.

A row begins as a copy of the base's stream at the block it is patched in, so that nothing before that block and, under
a causal network, nothing before that column is computed again: earlier columns answer with the base's keys and values.
Rows that begin at different columns run together where one larger call is cheaper than two; the columns that come in
front of a row's own are then those of the base.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...host import Host, SiteInfo
from ..hooks import hooks_alone
from ..views import site_unview, site_view
from .blocks import Blocks
from .cells import Cell
from .rows import RowSession, put

# What one more call of a block costs besides its tokens, in tokens: reading the weights, and some hundred small calls.
CALL_IN_TOKENS = {"cpu": 24, "cuda": 512}


@dataclass
class Group:
    """Rows that begin at one column: which cells they are of, and their stream, [row, column - start, ...]."""

    start: int
    numbers: list[int]
    stream: Tensor


@dataclass(frozen=True)
class Job:
    """What the frontier is run on. `donors` are the values of one example by site; `columns` says whether rows may
    begin at another column than the first."""

    host: Host
    blocks: Blocks
    donors: dict[str, Tensor]
    columns: bool

    @property
    def width(self) -> int | None:
        return self.blocks.example.width

    def start(self, cell: Cell) -> int:
        return cell.start if self.columns else 0


def waves(job: Job, cells: Sequence[Cell], tokens: int) -> Iterator[list[int]]:
    """Numbers of cells in parts of at most `tokens` tokens, those that begin at one column side by side."""
    order = sorted(range(len(cells)), key=lambda number: (job.start(cells[number]), _layer(cells[number])))
    part: list[int] = []
    used = 0
    for number in order:
        size = (job.width or 1) - job.start(cells[number])
        if part and used + size > tokens:
            yield part
            part, used = [], 0
        part.append(number)
        used += size
    if part:
        yield part


def run_wave(job: Job, cells: Sequence[Cell], numbers: Sequence[int]) -> list[Group]:
    """The last block's output of every cell, in groups by the column they begin at."""
    entering: dict[int, list[int]] = {}
    for number in numbers:
        entering.setdefault(_entry(cells[number].site), []).append(number)
    groups: dict[int, Group] = {}
    layers = len(job.blocks.blocks)
    with torch.no_grad(), hooks_alone():
        for layer in range(min(entering), layers + 1):
            inside = _enter(job, cells, entering.get(layer, []), layer, groups)
            if layer < layers:
                groups = _through(job, cells, layer, groups, inside)
    return list(groups.values())


def _layer(cell: Cell) -> int:
    return cell.site.layer or 0


def _is_stream(site: SiteInfo) -> bool:
    return site.address.endswith((".in", ".out")) and not site.port.module


def _entry(site: SiteInfo) -> int:
    """The block that a row enters first: the one after it where a block's own output is patched."""
    layer = site.layer or 0
    return layer + 1 if _is_stream(site) and site.port.side == "out" else layer


def _enter(job: Job, cells: Sequence[Cell], numbers: list[int], layer: int, groups: dict[int, Group]) -> set[int]:
    """Rows that begin here join those that are under way; returns the cells that are patched inside the block."""
    stream = job.blocks.stream(layer)
    by_start: dict[int, list[int]] = {}
    for number in numbers:
        by_start.setdefault(job.start(cells[number]), []).append(number)
    inside = set()
    for start, joining in by_start.items():
        part = stream[:, start:] if start else stream
        rows = part.repeat(len(joining), *[1] * (part.dim() - 1))
        for row, number in enumerate(joining):
            if _is_stream(cells[number].site):
                _patch_stream(job, cells[number], rows, row)
            else:
                inside.add(number)
        if start in groups:
            groups[start].numbers += joining
            groups[start].stream = torch.cat([groups[start].stream, rows])
        else:
            groups[start] = Group(start, list(joining), rows)
    return inside


def _patch_stream(job: Job, cell: Cell, rows: Tensor, row: int) -> None:
    one = rows[row : row + 1]
    view = site_view(job.host, cell.site, one, 1).clone()
    put(view, cell.site, 0, cell.selection, job.donors[cell.site.address], job.width)
    rows[row : row + 1] = site_unview(job.host, cell.site, one, view)


def _through(
    job: Job, cells: Sequence[Cell], layer: int, groups: dict[int, Group], inside: set[int]
) -> dict[int, Group]:
    """All groups after one block, those that run together side by side in one call."""
    ordered = [groups[start] for start in sorted(groups)]
    base, after = job.blocks.stream(layer), {}
    for together in _partition(ordered, job.width or 1, _call_cost(base)):
        start = together[0].start
        parts = [_from(base, group, start) for group in together]
        stream = parts[0] if len(parts) == 1 else torch.cat(parts)
        numbers = [number for group in together for number in group.numbers]
        with _patched(job, cells, numbers, inside, stream, start):
            out = job.blocks.run(layer, start, stream)
        row = 0
        for group in together:
            own = out[row : row + len(group.numbers)]
            row += len(group.numbers)
            own = own[:, group.start - start :] if group.start > start else own
            after[group.start] = Group(group.start, group.numbers, own)
    return after


def _from(base: Tensor, group: Group, start: int) -> Tensor:
    """The rows of a group from an earlier column on: the base's stream stands there."""
    if group.start == start:
        return group.stream
    before = base[:, start : group.start].expand(len(group.numbers), *[-1] * (base.dim() - 1))
    return torch.cat([before, group.stream], 1)


def _patched(job: Job, cells: Sequence[Cell], numbers: list[int], inside: set[int], stream: Tensor, start: int) -> Any:
    """The patches inside this block, active for as long as it runs."""
    if not inside.intersection(numbers):
        return nullcontext()
    session = RowSession(job.host, job.width)
    for row, number in enumerate(numbers):
        if number in inside:
            cell = cells[number]
            session.write(cell.site, row, cell.selection, job.donors[cell.site.address])
    session.expect(len(numbers), start, stream.shape[1])
    return session.active()


def _call_cost(stream: Tensor) -> int:
    return CALL_IN_TOKENS.get(stream.device.type, CALL_IN_TOKENS["cuda"])


def _partition(groups: list[Group], width: int, call: int) -> list[list[Group]]:
    """The groups, ordered by column, in runs that are called together, so that calls and tokens cost least."""
    count = len(groups)
    rows = [0]
    for group in groups:
        rows.append(rows[-1] + len(group.numbers))
    best: list[float] = [0.0] + [float("inf")] * count
    cut = [0] * (count + 1)
    for end in range(1, count + 1):
        for begin in range(end):
            cost = best[begin] + call + (rows[end] - rows[begin]) * (width - groups[begin].start)
            if cost < best[end]:
                best[end], cut[end] = cost, begin
    parts: list[list[Group]] = []
    while count:
        parts.insert(0, groups[cut[count] : count])
        count = cut[count]
    return parts
