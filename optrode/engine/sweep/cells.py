"""The cells of a sweep: which patches there are, which can change anything, and where each stands in the map."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...errors import BadInput, did_you_mean
from ...host import Host, SiteInfo
from ...positions import Positions
from ..axes import axes_of
from .examples import Example
from .rows import Selection

# Axes that stand for places in the input.
PLACES = ("token", "patch", "written")
# Towers that read the tokens of the batch themselves.
_READERS = ("", "encoder", "text")
POSITION, EXAMPLE = "position", "example"
_LAYER = re.compile(r"layers\.\d+\.")


@dataclass(frozen=True)
class Cell:
    """One patch of one example. `place` is where its value goes, an index of [example, site, layer, *each];
    `start` is the first column that it changes."""

    site: SiteInfo
    place: tuple[int, ...]
    selection: Selection
    start: int


@dataclass(frozen=True)
class Grid:
    """The axes of a map: `labels` of [site, layer, *each], and where each site of the model stands on the first two."""

    labels: dict[str, list[Any]]
    where: dict[str, tuple[int, int]]
    each: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(map(len, self.labels.values()))


def default_each(host: Host, sites: Sequence[SiteInfo]) -> tuple[str, ...]:
    """By head where there are heads, else by position, else nothing but the layer."""
    axes = sites[0].port.axes or ("example", "token", "feature")
    if "head" in axes:
        return ("head",)
    return (POSITION,) if set(PLACES) & set(axes) else ()


def grid_of(
    sites: Sequence[SiteInfo],
    each: tuple[str, ...],
    columns: list[int] | None,
    names: list[str],
    values: dict[str, Tensor],
) -> Grid:
    """The grid of one example. `names` are labels of all columns, `columns` the selected ones.

    Raises `BadInput` where a site lacks an axis that was asked for, or where sites have it in different sizes.
    """
    parts = list(dict.fromkeys(part_of(site) for site in sites))
    layers = list(dict.fromkeys(site.layer for site in sites if site.layer is not None))
    labels: dict[str, list[Any]] = {"site": parts, "layer": layers or [0]}
    where = {
        site.address: (parts.index(part_of(site)), layers.index(site.layer) if site.layer is not None else 0)
        for site in sites
    }
    for name in each:
        sizes = {site.address: _size(site, values[site.address], name, columns, len(names)) for site in sites}
        if len(set(sizes.values())) > 1:
            some = ", ".join(f"{sizes[site]} at {site}" for site in list(sizes)[:: max(1, len(sizes) - 1)][:2])
            raise BadInput(f"these sites differ along '{name}' ({some}): sweep them one after the other")
        size = next(iter(sizes.values()))
        by_column = name == POSITION and _columns_at(sites[0], values[sites[0].address], columns, len(names))
        labels[name] = [names[column] for column in by_column] if by_column else list(range(size))
    return Grid(labels, where, each)


def part_of(site: SiteInfo) -> str:
    """The site's name within its block, with the name of its tower."""
    return _LAYER.sub("", site.address)


def _columns_at(site: SiteInfo, value: Tensor, columns: list[int] | None, width: int) -> list[int] | None:
    """The selected columns of the batch where these are the site's own places, else None: all of its places."""
    axes = axes_of(site, value.dim() + 1)[1:]
    own = axes[:1] == ("token",) and value.shape[0] == width and site.tower in _READERS
    return columns if own else None


def _size(site: SiteInfo, value: Tensor, name: str, columns: list[int] | None, width: int) -> int:
    axes = axes_of(site, value.dim() + 1)[1:]
    index = _axis(axes, name)
    if index is None:
        known = [POSITION if axis in PLACES else axis for axis in axes]
        raise BadInput(f"{site.address} has no axis '{name}': {did_you_mean(name, [*known, EXAMPLE])}")
    own = _columns_at(site, value, columns, width) if name == POSITION else None
    return len(own) if own is not None else value.shape[index]


def _axis(axes: tuple[str, ...], name: str) -> int | None:
    wanted = PLACES if name == POSITION else (name,)
    return next((index for index, axis in enumerate(axes) if axis in wanted), None)


def selected_columns(host: Host, example: Example, positions: str | Positions) -> list[int] | None:
    """The columns that positions mean in one example; None where inputs have no tokens."""
    chosen = Positions(positions) if isinstance(positions, str) else positions
    if example.batch is None:
        if chosen.text != "all":
            raise BadInput(f"positions '{chosen}' need prompts or tokens: these inputs have none, so use 'all'")
        return None
    columns = chosen.in_prompt(example.batch)[0].nonzero().flatten().tolist()
    if not columns:
        raise BadInput(f"positions '{chosen}' select no token of prompt {example.number}, so nothing can be patched")
    return columns


def cells_of(
    host: Host,
    example: Example,
    sites: Sequence[SiteInfo],
    grid: Grid,
    columns: list[int] | None,
    base: dict[str, Tensor],
    donor: dict[str, Tensor],
) -> list[Cell]:
    """Every cell in which base and donor differ, in no particular order. All others have exactly no effect.

    Under a causal network, columns before the first token that differs are equal by what a network is; a batch of
    experts may compute them with another last bit.
    """
    found: list[Cell] = []
    equal_before = example.first_difference if host.causal else 0
    for site in sites:
        own, other = base[site.address], donor[site.address]
        places = _columns_at(site, own, columns, example.width or 0)
        if places is None and columns is not None and len(columns) < (example.width or 0):
            raise BadInput(f"positions have no meaning at {site.address}, whose places are not the tokens: use all")
        found += _cells_at(site, grid, places, equal_before, own, other)
    return found


def _cells_at(
    site: SiteInfo, grid: Grid, columns: list[int] | None, equal_before: int, base: Tensor, donor: Tensor
) -> list[Cell]:
    axes = axes_of(site, base.dim() + 1)[1:]
    named = [_axis(axes, name) for name in grid.each]
    at = _axis(axes, POSITION)
    changed = base != donor
    if at is not None and columns is not None and equal_before:
        changed.narrow(at, 0, min(equal_before, changed.shape[at])).fill_(False)
    kept = {index for index in (*named, at) if index is not None}
    for index in range(changed.dim()):
        if index not in kept:
            changed = changed.any(index, keepdim=True)
    places = columns if columns is not None or at is None else list(range(base.shape[at]))
    inner = [index for name, index in zip(grid.each, named, strict=True) if name != POSITION and index is not None]
    by_position = POSITION in grid.each
    result = []
    for picked in itertools.product(*(range(base.shape[index]) for index in inner)):
        selection: list[Any] = [slice(None)] * base.dim()
        where = [0] * base.dim()
        for index, number in zip(inner, picked, strict=True):
            selection[index] = where[index] = number
        for number, chosen in _choices(changed, where, at, places, by_position):
            ours = list(selection)
            if at is not None:
                ours[at] = chosen
            order = iter(picked)
            place = tuple(number if name == POSITION else next(order) for name in grid.each)
            start = 0 if columns is None else int(chosen if isinstance(chosen, int) else chosen[0])
            result.append(Cell(site, (*grid.where[site.address], *place), tuple(ours), start))
    return result


def _choices(changed: Tensor, where: list[int], at: int | None, places: list[int] | None, by_position: bool) -> list:
    """Number and columns of each cell that changes anything; all its changed columns are patched together, or one."""
    if at is None or places is None:
        return [(0, None)] if bool(changed[tuple(where)]) else []
    line: list[Any] = list(where)
    line[at] = places
    flags = changed[tuple(line)].tolist()
    if by_position:
        return [(number, column) for number, (column, flag) in enumerate(zip(places, flags, strict=True)) if flag]
    together = [column for column, flag in zip(places, flags, strict=True) if flag]
    return [(0, torch.tensor(together))] if together else []
