"""Where activations go the moment they are seen: straight into their rows of the shard, rounded on the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .examples import Example
from .layout import SCALE, ShardLayout, StoredSite
from .planning import ShardPlan
from .precision import Rounding, scales_of

# Rounding goes over values seven times. Pieces of this many are half a megabyte in float32.
PIECE_VALUES = 2**17


class ShardBuffer:
    """The data part of one shard in memory, and a tensor of [row, feature] over it for each site.

    `norms` holds the norm of every row at sites of [example, token, feature], from which sink tokens are known.
    """

    def __init__(self) -> None:
        self._memory = torch.empty(0, dtype=torch.uint8)
        self.sites: dict[str, StoredSite] = {}
        self.rounding: dict[str, Rounding] = {}
        self.norms: dict[str, Tensor] = {}

    def begin(self, sites: Sequence[StoredSite], layout: ShardLayout, rows: int) -> None:
        """Make room for a shard; memory of the one before is used again."""
        if len(self._memory) < layout.size:
            self._memory = torch.empty(layout.size, dtype=torch.uint8)
        self.layout, self.rows = layout, rows
        self.sites = {site.address: site for site in sites}
        self.rounding = {site.address: Rounding() for site in sites}
        vectors = [site for site in sites if site.axes == ("feature",) and site.own.is_floating_point]
        self.norms = {site.address: torch.zeros(rows) for site in vectors}
        self.tensors = {
            name: self._memory[place.start : place.stop].view(place.dtype).view(place.shape[0], -1)
            for name, place in layout.places.items()
        }

    def bytes_of(self, name: str, first: int, stop: int) -> memoryview:
        """Rows [first, stop) of one tensor, as they go to the disk."""
        return as_bytes(self.tensors[name][first:stop])

    def offset_of(self, name: str, first: int) -> int:
        """Where row `first` of a tensor begins in the data part."""
        place = self.layout.places[name]
        return place.start + first * (place.stop - place.start) // place.shape[0]


@dataclass(frozen=True)
class Run:
    """Places [start, stop) of example number `row` of a forward; they become rows from `first` on."""

    row: int
    start: int
    stop: int
    first: int


class Landing:
    """What one forward brings, and where each part of it goes."""

    def __init__(self, plan: ShardPlan, block: int, columns: Sequence[int]):
        """`columns`: where the first place of each example of the forward stands in its row."""
        self.block = block
        numbers = plan.forwards[block]
        self.runs = [
            run for row, number in enumerate(numbers)
            for run in _runs(plan.examples[number], row, columns[row], plan.first_row[number])
        ]  # fmt: skip
        self.rows = merged([(run.first, run.first + run.stop - run.start) for run in self.runs])

    def put(self, buffer: ShardBuffer, site: StoredSite, h: Tensor) -> None:
        """Store `h`, [example, place, ...], in the rows that it belongs to."""
        with torch.no_grad():
            parts = list(self._parts(h.detach()))
            scale = self._scale(buffer, site, parts)
            out, norms = buffer.tensors[site.address], buffer.norms.get(site.address)
            for first, values in _pieces(parts):
                stop = first + len(values)
                buffer.rounding[site.address].keep(site.address, values, out[first:stop], scale)
                if norms is not None:
                    norms[first:stop] = torch.linalg.vector_norm(values, dim=-1, dtype=_at_least_float(values))

    def _parts(self, h: Tensor) -> list[tuple[int, Tensor]]:
        """First row and values [row, feature] of parts whose rows follow one another."""
        flat = h.flatten(2) if h.dim() > 2 else h[..., None]
        whole = len(self.rows) == 1 and self.rows[0][1] - self.rows[0][0] == flat.shape[0] * flat.shape[1]
        if whole and all(run.row == number for number, run in enumerate(self.runs)):
            return [(self.rows[0][0], flat.flatten(0, 1))]
        if len(self.runs) <= 4 * len(flat):
            return [(run.first, flat[run.row, run.start : run.stop]) for run in self.runs]
        rows = torch.cat([torch.full((run.stop - run.start,), run.row) for run in self.runs]).to(h.device)
        places = torch.cat([torch.arange(run.start, run.stop) for run in self.runs]).to(h.device)
        values, parts, done = flat[rows, places], [], 0
        for first, stop in self.rows:
            parts.append((first, values[done : done + stop - first]))
            done += stop - first
        return parts

    def _scale(self, buffer: ShardBuffer, site: StoredSite, parts: list[tuple[int, Tensor]]) -> Tensor | None:
        if not site.scaled:
            return None
        largest = torch.stack([_largest(values) for _, values in parts]).amax(0)
        scale = scales_of(largest)
        buffer.tensors[site.address + SCALE][self.block] = scale
        return scale


def _pieces(parts: list[tuple[int, Tensor]]) -> Iterator[tuple[int, Tensor]]:
    """The same rows in pieces of at most `PIECE_VALUES` values, which stay in the cache while they are gone over."""
    for first, values in parts:
        step = max(1, PIECE_VALUES // max(1, values.shape[1])) if values.device.type == "cpu" else len(values)
        for start in range(0, len(values), max(1, step)):
            yield first + start, values[start : start + step]


def _largest(values: Tensor) -> Tensor:
    """Largest magnitude of each channel that is a number."""
    found = values.abs().amax(0)
    if bool(torch.isfinite(found).all()):
        return found
    return torch.where(torch.isfinite(values), values.abs(), 0.0).amax(0)


def _at_least_float(values: Tensor) -> torch.dtype:
    return torch.float64 if values.dtype == torch.float64 else torch.float32


def _runs(example: Example, row: int, column: int, first: int) -> list[Run]:
    """The kept places of one example as runs of places that follow one another."""
    keep = example.keep
    if bool(keep.all()):
        return [Run(row, column, column + len(keep), first)]
    places = keep.nonzero().flatten()
    breaks = (places.diff() > 1).nonzero().flatten() + 1
    runs, done = [], 0
    for part in places.tensor_split(breaks):
        start = column + int(part[0])
        runs.append(Run(row, start, start + len(part), first + done))
        done += len(part)
    return runs


def as_bytes(values: Tensor) -> memoryview:
    """The memory of a tensor whose values lie one after the other."""
    array: Any = values.reshape(-1).view(torch.uint8).numpy()
    return memoryview(array)


def merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans with those that follow one another made one; the order is kept.

    >>> merged([(0, 2), (2, 5), (7, 8)])
    [(0, 5), (7, 8)]
    """
    found: list[tuple[int, int]] = []
    for first, stop in spans:
        if found and found[-1][1] == first:
            found[-1] = (found[-1][0], stop)
        else:
            found.append((first, stop))
    return found
