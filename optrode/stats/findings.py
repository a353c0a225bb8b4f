"""What stands out in statistics: outlier channels, sink tokens, massive activations, units that are never on."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .histogram import Magnitudes
from .massive import ABSOLUTE_THRESHOLD, RELATIVE_THRESHOLD
from .rows import WHERE
from .token_mask import SINK_FACTOR

if TYPE_CHECKING:
    from .statistics import SiteStatistics, Statistics

# A unit is an outlier from so many times the usual root mean square of its site's units on.
OUTLIER_FACTOR = 6.0


def root_mean_squares(site: SiteStatistics) -> Tensor:
    """Root mean square of each unit over the rows, [unit] float64. Needs `mean` and `variance`."""
    return (site["mean"] ** 2 + site["variance"]).sqrt().flatten()


def usual_size(sizes: Tensor) -> float:
    """The median root mean square of the units that are not always zero; NaN where all are.

    Silent units say nothing about the others' size: where most are, as after a ReLU, a median over all would be zero.

    >>> usual_size(torch.tensor([0.0, 0.0, 0.0, 2.0, 3.0, 40.0]))
    3.0
    """
    known = sizes[sizes > 0]
    return float(known.median()) if len(known) else float("nan")


def outlier_units(site: SiteStatistics) -> list[int]:
    """Units (counted over all axes) whose root mean square is `OUTLIER_FACTOR` times the usual one, largest first."""
    sizes = root_mean_squares(site)
    found = (sizes >= OUTLIER_FACTOR * usual_size(sizes)).nonzero().flatten()
    return found[sizes[found].argsort(descending=True, stable=True)].tolist()


def silent_units(site: SiteStatistics) -> list[int]:
    """Units that were zero at every row. Needs `signs`."""
    return (site["zero"].flatten() == 1.0).nonzero().flatten().tolist()


def largest_of(statistics: Statistics, address: str) -> dict[str, Any]:
    """The value of largest magnitude of a site: value, unit, document, example, position, token, text."""
    site = statistics[address]
    highest, lowest = site["highest"].flatten(), site["lowest"].flatten()
    unit = int(torch.maximum(highest.abs(), lowest.abs()).argmax())
    return extreme_of(statistics, site, unit)


def extreme_of(statistics: Statistics, site: SiteStatistics, unit: int) -> dict[str, Any]:
    """The value of largest magnitude of one unit, with its example."""
    high, low = float(site["highest"].flatten()[unit]), float(site["lowest"].flatten()[unit])
    side = "highest" if abs(high) >= abs(low) else "lowest"
    where = site[f"{side}_where"].view(-1, len(WHERE))[unit]
    return {"value": high if side == "highest" else low, "unit": unit_name(site, unit), **_place(statistics, where)}


def unit_name(site: SiteStatistics, unit: int) -> str:
    """A unit's place in the site's axes, such as `507`, or `3, 12` for a head and a feature of it."""
    names: list[int] = []
    for size in reversed(site.shape):
        names.insert(0, unit % size)
        unit //= size
    return ", ".join(map(str, names))


def outlier_channels(statistics: Statistics) -> list[dict[str, Any]]:
    """Every outlier unit of every site: site, unit, its root mean square, and the ratio to the usual one."""
    found = []
    for address, site in statistics.items():
        if "variance" not in site or not site.count:
            continue
        sizes = root_mean_squares(site)
        usual = usual_size(sizes)
        for unit in outlier_units(site):
            size = float(sizes[unit])
            entry = {"site": address, "layer": layer_of(address), "unit": unit_name(site, unit), "rms": size}
            found.append({**entry, "ratio": size / usual})
    return found


def sink_tokens(statistics: Statistics) -> list[dict[str, Any]]:
    """Tokens whose norm is above `SINK_FACTOR` times the median of their site; the largest of each site.

    As many as `Norms` keeps: 16 a site. `site["sinks"]` counts all of them.
    """
    found = []
    for address, site in statistics.items():
        if "norm_top" not in site or not site.count:
            continue
        median = float(site["norm_median"])
        for norm, where in zip(site["norm_top"].tolist(), site["norm_top_where"], strict=True):
            # Where most rows are zero, nothing says what a usual norm is.
            if norm > SINK_FACTOR * median > 0:
                entry = {"site": address, "layer": layer_of(address), "norm": norm, "ratio": norm / median}
                found.append({**entry, **_place(statistics, where)})
    return found


def massive_activations(statistics: Statistics) -> list[dict[str, Any]]:
    """The largest value of each massive unit, by site and size. Needs `extremes` and `magnitudes`.

    Massive as in arXiv 2402.17762: above 100, and from 1000 times the median magnitude of the site on, which here is
    taken over all data together.
    """
    found = []
    for address, site in statistics.items():
        sizes = site.accumulators.get("magnitudes")
        if not isinstance(sizes, Magnitudes) or "highest" not in site or not site.count:
            continue
        median = sizes.quantile(0.5)
        largest = torch.maximum(site["highest"].flatten().abs(), site["lowest"].flatten().abs())
        units = ((largest > ABSOLUTE_THRESHOLD) & (largest >= RELATIVE_THRESHOLD * median)).nonzero().flatten()
        for unit in units[largest[units].argsort(descending=True)].tolist():
            entry = {"site": address, "layer": layer_of(address), "median": median}
            found.append({**entry, **extreme_of(statistics, site, unit)})
    return found


def layer_of(address: str) -> int | None:
    """The number of the block that a site is in; None for one that is in none."""
    found = re.search(r"(?:^|\.)layers\.(\d+)\.", address)
    return int(found.group(1)) if found else None


def _place(statistics: Statistics, where: Tensor) -> dict[str, Any]:
    place = dict(zip(WHERE, map(int, where.tolist()), strict=True))
    return {**place, "text": statistics.tokens.get(place["token"], "")}
