"""Statistics as tables: one row a site, one row a unit, or a labelled dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ..errors import BadInput
from .findings import largest_of, outlier_units, silent_units
from .rows import WHERE

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from .statistics import SiteStatistics, Statistics

# Axes that a statistic has in front of those of a row.
_LEADING = {
    "top": "rank", "top_where": "rank", "norm_top": "norm_rank", "norm_top_where": "norm_rank",
    "quantiles": "quantile", "ranks": "quantile", "histogram": "bin", "edges": "edge",
}  # fmt: skip


def site_table(statistics: Statistics) -> pd.DataFrame:
    """One row a site: rows counted, norms, and the largest value with its unit and token, as far as collected."""
    import pandas as pd

    lines: dict[str, dict[str, Any]] = {}
    for address, site in statistics.items():
        line: dict[str, Any] = {"rows": site.count, "skipped": site.skipped}
        line |= {
            name: value.item() for name, value in site.items() if value.dim() == 0 and name not in ("count", "skipped")
        }
        if "highest" in site and site.count:
            line |= {f"largest_{key}": value for key, value in largest_of(statistics, address).items()}
        if "variance" in site and site.count:
            line["outlier_units"] = len(outlier_units(site))
        if "zero" in site and site.count:
            line["silent_units"] = len(silent_units(site))
        lines[address] = line
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("site")


def unit_table(statistics: Statistics, site: SiteStatistics) -> pd.DataFrame:
    """One row a unit, indexed by its place in the site's axes."""
    import pandas as pd

    columns: dict[str, Any] = {}
    for name, value in site.items():
        if tuple(value.shape) == site.shape:
            columns[name] = value.flatten().numpy()
        elif name.endswith("_where") and tuple(value.shape) == (*site.shape, len(WHERE)):
            parts = value.view(-1, len(WHERE)).numpy()
            columns |= {f"{name.removesuffix('where')}{part}": parts[:, n] for n, part in enumerate(WHERE)}
        elif name == "quantiles":
            columns |= {
                f"q{rank:g}": part.flatten().numpy() for rank, part in zip(site["ranks"].tolist(), value, strict=True)
            }
    frame = pd.DataFrame(columns)
    for side in ("highest", "lowest"):
        if f"{side}_token" in frame:
            frame[f"{side}_text"] = [statistics.tokens.get(int(token), "") for token in frame[f"{side}_token"]]
    places = np.indices(site.shape).reshape(len(site.shape), -1)
    if len(site.axes) == 1:
        return frame.set_index(pd.Index(places[0], name=site.axes[0]))
    return frame.set_index(pd.MultiIndex.from_arrays(list(places), names=list(site.axes))) if site.axes else frame


def dataset(statistics: Statistics, sites: Sequence[str]) -> xr.Dataset:
    import xarray as xr

    chosen = [statistics[address] for address in sites]
    if not chosen:
        raise BadInput("no site was chosen")
    if len({(site.shape, site.axes) for site in chosen}) > 1:
        raise BadInput("these sites have rows of different shapes: name some of one shape, such as 'layers.*.out'")
    variables = {}
    for name, value in chosen[0].items():
        dims = _dims(name, value, chosen[0])
        variables[name] = (("site", *dims), np.stack([site[name].numpy() for site in chosen]))
    coordinates: dict[str, Any] = {"site": [site.address for site in chosen]}
    if any("place" in dims for dims, _ in variables.values()):
        coordinates["place"] = list(WHERE)
    return xr.Dataset(variables, coordinates, {key: str(value) for key, value in statistics.info.items()})


def _dims(name: str, value: Tensor, site: SiteStatistics) -> tuple[str, ...]:
    shape, dims = list(value.shape), []
    if name.endswith("_where"):
        shape.pop()
        dims = ["place"]
    if site.shape and tuple(shape[len(shape) - len(site.shape) :]) == site.shape:
        dims = [*site.axes, *dims]
        shape = shape[: len(shape) - len(site.shape)]
    if name == "covariance":
        return (*(f"{axis}_of_second" for axis in site.axes), *dims)
    leading = [_LEADING.get(name, f"{name}_{number}") for number in range(len(shape))]
    return (*leading, *dims)
