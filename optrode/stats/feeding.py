"""Where rows go as they come: to the accumulators of their site, and to the pairs that wait for two sites."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import takewhile
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import NotSupported, UnknownSite, did_you_mean
from .accumulator import Accumulator
from .choice import Wanted, accumulators
from .covariance import CrossMoments
from .extremes import Extremes
from .norms import Norms
from .rows import WHERE, Rows
from .statistics import SiteStatistics, Statistics
from .top import Top

# Axes of a picture. A channel is the same unit at each of its places, so each place is a row.
PLACES = ("patch", "row", "column")


class Feeding:
    """The accumulators of all sites. `take` gives them the rows of one site; `done` says that a portion is complete."""

    def __init__(self, sites: Iterable[Any], wanted: Sequence[Wanted], cross: Iterable[tuple[str, str]] = ()):
        """`sites`: each with `address`, `axes` and `shape` of a row, and `own`, the dtype it has in the network."""
        self._sites: dict[str, SiteStatistics] = {}
        self._places: dict[str, tuple[int, ...]] = {}
        self._units: set[str] = set()
        for site in sites:
            if not site.own.is_floating_point:
                raise NotSupported(f"{site.address} holds {site.own} numbers, which are no measurements: leave it out")
            places = len(list(takewhile(PLACES.__contains__, site.axes)))
            self._places[site.address] = tuple(site.shape[:places])
            self._units.add({0: "", 1: "patch"}.get(places, "pixel"))
            made = accumulators(wanted, tuple(site.shape[places:]))
            self._sites[site.address] = SiteStatistics(site.address, tuple(site.axes[places:]), made)
        self._cross: dict[tuple[str, str], CrossMoments] = {}
        for first, second in cross:
            for address in (first, second):
                if address not in self._sites:
                    raise UnknownSite(f"'{address}' of cross= is not measured: {did_you_mean(address, self._sites)}")
            self._cross[first, second] = CrossMoments(self._sites[first].shape, self._sites[second].shape)
        self._held: dict[str, Tensor] = {}
        self._crossed = {address for pair in self._cross for address in pair}

    def take(self, address: str, values: Tensor, mask: Tensor | None, where: np.ndarray) -> None:
        """Rows of one site: [..., *shape], with `mask` bool [...] and `where` int64 [..., 4]."""
        site = self._sites[address]
        if self._places[address]:
            mask, where = _of_each_place(self._places[address], mask, where)
        rows = Rows.of(values, site.shape, mask, where)
        for accumulator in site.accumulators.values():
            accumulator.add(rows)
        if address in self._crossed:
            held = values.detach().reshape(-1, *site.shape)
            self._held[address] = held[mask.reshape(-1)].clone() if mask is not None else held.clone()

    def done(self) -> None:
        """All sites have taken the rows of this portion."""
        for (first, second), moments in self._cross.items():
            moments.update(self._held[first], self._held[second])
        self._held.clear()

    @property
    def addresses(self) -> list[str]:
        return list(self._sites)

    @property
    def largest_row(self) -> int:
        """Values that come with a row of the site that has most of them."""
        return max(prod(self._places[address]) * prod(site.shape) for address, site in self._sites.items())

    def statistics(self, info: dict[str, Any], tokens: dict[int, str]) -> Statistics:
        """What was counted, with the texts of the tokens that examples name.

        Where each place of a picture is a row, `unit` of `info` says so; it is `row` where sites differ in that.
        """
        if self._units != {""}:
            info = {**info, "unit": self._units.pop() if len(self._units) == 1 else "row"}
        named = {token for site in self._sites.values() for one in site.accumulators.values() for token in _named(one)}
        texts = {token: tokens[token] for token in sorted(named) if token in tokens}
        return Statistics(self._sites, info, self._cross, texts)


def measured(sites: Iterable[Any], named: bool) -> list[Any]:
    """The sites that can be measured: those of whole numbers are left out unless they were `named`."""
    every = list(sites)
    return every if named else [site for site in every if site.own.is_floating_point] or every


def _of_each_place(places: tuple[int, ...], mask: Tensor | None, where: np.ndarray) -> tuple[Tensor | None, np.ndarray]:
    """Mask [..., *places] and where [..., *places, 4] from those of whole pictures; positions count the places."""
    ones, number = (1,) * len(places), np.arange(prod(places)).reshape(places)
    each = np.broadcast_to(where.reshape(*where.shape[:-1], *ones, 4), (*where.shape[:-1], *places, 4)).copy()
    each[..., WHERE.index("position")] = number
    if mask is not None:
        mask = mask.reshape(*mask.shape, *ones).expand(*mask.shape, *places)
    return mask, each


def _named(accumulator: Accumulator) -> set[int]:
    """Ids of the tokens that an accumulator's examples name."""
    if not isinstance(accumulator, Extremes | Top | Norms):
        return set()
    found = [value for name, value in accumulator.result().items() if name.endswith("_where")]
    return {int(token) for where in found for token in torch.unique(where[..., 3]).tolist() if token >= 0}
