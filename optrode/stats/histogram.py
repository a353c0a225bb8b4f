"""Counts of values by size: between edges for each unit, or by magnitude for a whole site."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import BadInput
from .accumulator import Accumulator
from .extremes import Extremes
from .rows import Rows


class Histogram(Accumulator):
    """How many values of each unit lie between edges that are fixed before. Equal in any order.

    `histogram` is [bin, *shape] int64; a bin holds its lower edge and not its upper one. `below` and `above` count what
    lies under the first edge, and from the last one on. Edges are taken as float32.

    Costs 4 nanoseconds a value; 8 bytes a unit and bin.

    >>> histogram = Histogram(1, edges=[0.0, 1.0, 2.0])
    >>> histogram.update(torch.tensor([[-3.0], [0.0], [0.5], [1.0], [2.0]]))
    >>> histogram.result()["histogram"].flatten().tolist(), histogram.result()["above"].item()
    ([2, 1], 1)
    """

    kind = "histogram"
    settings = ("edges",)

    def __init__(self, shape: int | Sequence[int] = (), edges: Sequence[float] = ()):
        super().__init__(shape)
        self.edges = tuple(float(edge) for edge in np.asarray(edges, np.float32))
        if len(self.edges) < 2 or not all(a < b for a, b in zip(self.edges, self.edges[1:], strict=False)):
            raise BadInput("a histogram needs at least two edges, each above the one before")
        self._edges = torch.tensor(self.edges, dtype=torch.float32)
        self._counts = torch.zeros(len(self.edges) + 1, self.units, dtype=torch.int64)

    @classmethod
    def between(cls, extremes: Extremes, bins: int = 64) -> Histogram:
        """Bins of equal width from the smallest to the largest value that a first pass has found."""
        found = extremes.result()
        low, high = float(found["lowest"].min()), float(found["highest"].max())
        if not np.isfinite([low, high]).all():
            raise BadInput("no row was counted in the first pass, so there is no range to cut into bins")
        edges = np.linspace(low, high, bins + 1).astype(np.float32)
        # The largest value belongs to the last bin.
        edges[-1] = np.nextafter(np.float32(max(high, edges[-2])), np.float32(np.inf))
        return cls(extremes.shape, np.unique(edges).tolist())

    @classmethod
    def least(cls, shape: Sequence[int], **settings: Any) -> int:
        return (len(settings["edges"]) + 1) * prod(shape)

    def result(self) -> dict[str, Tensor]:
        bins = len(self.edges) - 1
        return {
            "histogram": self._shaped(self._counts[1:-1], bins),
            "below": self._shaped(self._counts[0]),
            "above": self._shaped(self._counts[-1]),
            "edges": self._edges.clone(),
        }

    def _add(self, rows: Rows) -> None:
        unit, bins = torch.arange(self.units), len(self._counts)
        for block in rows.blocks():
            place = torch.bucketize(block, self._edges, right=True)
            place.mul_(self.units).add_(unit)
            self._counts += torch.bincount(place.flatten(), minlength=bins * self.units).view(bins, -1)

    def _merge(self, other: Histogram) -> None:
        self._counts += other._counts

    def _tensors(self) -> dict[str, Tensor]:
        return {"counts": self._counts}

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        self._counts.copy_(tensors["counts"])


def log_edges(low: float, high: float, bins_per_decade: int = 4) -> list[float]:
    """Edges at equal ratios from `low` to `high` and, mirrored, below zero.

    >>> [round(edge, 3) for edge in log_edges(0.1, 10.0, 1)]
    [-10.0, -1.0, -0.1, 0.1, 1.0, 10.0]
    """
    if not 0 < low < high:
        raise BadInput("logarithmic edges go from a number above zero to a larger one")
    count = max(1, round(np.log10(high / low) * bins_per_decade))
    edges = np.geomspace(low, high, count + 1)
    return [*(-edges[::-1]).tolist(), *edges.tolist()]


class Magnitudes(Accumulator):
    """Quantiles of the magnitudes of all values of a site, whatever their unit. Equal in any order.

    Counts by the first 9 bits of the magnitude: a sketch of relative error, as DDSketch (arXiv 1908.10693) is, with
    float32's own binary digits as bins. A quantile is within `RELATIVE_ERROR` of a value of that rank.

    Costs 1 nanosecond a value; 512 KiB.

    >>> magnitudes = Magnitudes(1)
    >>> magnitudes.update(torch.tensor([[1.0], [-3.0], [100.0]]))
    >>> round(magnitudes.quantile(0.5), 1)
    3.0
    """

    kind = "magnitudes"
    RELATIVE_ERROR = 2.0**-9

    def __init__(self, shape: int | Sequence[int] = ()):
        super().__init__(shape)
        self._counts = np.zeros(2**16, np.int64)

    def quantile(self, q: float) -> float:
        """The magnitude below which a share `q` of the values lies (the lower of two, as in `torch.median`)."""
        total = int(self._counts.sum())
        if not total:
            return float("nan")
        place = int(np.searchsorted(np.cumsum(self._counts), int(q * (total - 1)) + 1))
        bits = np.array([place << 15, (place + 1) << 15], np.uint32).view(np.float32).astype(np.float64)
        return 0.0 if place == 0 else float(bits.mean())

    def above(self, bound: float) -> int:
        """How many magnitudes are above `bound`, to the resolution of the bins."""
        return int(self._counts[(int(np.array(bound, np.float32).view(np.uint32)) >> 15) + 1 :].sum())

    @classmethod
    def least(cls, shape: Sequence[int], **settings: Any) -> int:
        return 0

    def result(self) -> dict[str, Tensor]:
        names = {"median": 0.5, "p95": 0.95, "p99": 0.99}
        return {f"magnitude_{name}": torch.tensor(self.quantile(q), dtype=torch.float64) for name, q in names.items()}

    def _add(self, rows: Rows) -> None:
        for block in rows.blocks():
            places = (block.view(torch.int32) >> 15).bitwise_and_(2**16 - 1)
            self._counts += torch.bincount(places.flatten(), minlength=2**16).numpy()

    def _merge(self, other: Magnitudes) -> None:
        self._counts += other._counts

    def _tensors(self) -> dict[str, Tensor]:
        places = np.flatnonzero(self._counts)
        return {"places": torch.from_numpy(places), "counts": torch.from_numpy(self._counts[places])}

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        self._counts[:] = 0
        self._counts[tensors["places"].numpy()] = tensors["counts"].numpy()
