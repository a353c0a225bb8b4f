"""Where rows go as they come: to the accumulators of their site, and to the pairs that wait for two sites."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
from .rows import Rows
from .statistics import SiteStatistics, Statistics
from .top import Top


class Feeding:
    """The accumulators of all sites. `take` gives them the rows of one site; `done` says that a portion is complete."""

    def __init__(self, sites: Iterable[Any], wanted: Sequence[Wanted], cross: Iterable[tuple[str, str]] = ()):
        """`sites`: each with `address`, `axes` and `shape` of a row, and `own`, the dtype it has in the network."""
        self._sites: dict[str, SiteStatistics] = {}
        for site in sites:
            if not site.own.is_floating_point:
                raise NotSupported(f"{site.address} holds {site.own} numbers, which are no measurements: leave it out")
            self._sites[site.address] = SiteStatistics(site.address, site.axes, accumulators(wanted, site.shape))
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

    def statistics(self, info: dict[str, Any], tokens: dict[int, str]) -> Statistics:
        """What was counted, with the texts of the tokens that examples name."""
        named = {token for site in self._sites.values() for one in site.accumulators.values() for token in _named(one)}
        texts = {token: tokens[token] for token in sorted(named) if token in tokens}
        return Statistics(self._sites, info, self._cross, texts)


def _named(accumulator: Accumulator) -> set[int]:
    """Ids of the tokens that an accumulator's examples name."""
    if not isinstance(accumulator, Extremes | Top | Norms):
        return set()
    found = [value for name, value in accumulator.result().items() if name.endswith("_where")]
    return {int(token) for where in found for token in torch.unique(where[..., 3]).tolist() if token >= 0}
