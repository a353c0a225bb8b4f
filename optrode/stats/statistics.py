"""`Statistics`: what was measured, by site and by name, to be merged, saved and looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..errors import BadFile, BadInput, UnknownName, UnknownSite, did_you_mean
from ..messages import shown
from ..sites import parse, select
from ..version import __version__
from .accumulator import Accumulator, check_size, made, sizes
from .covariance import CrossMoments
from .file import read_file, write_file
from .rows import WHERE, in_words

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

FORMAT = "optrode.statistics/1"
# What must agree between statistics that are merged.
_SAME = ("weights", "unit", "positions", "mask")


class SiteStatistics(Mapping[str, Tensor]):
    """The statistics of one site by name: `site["mean"]` has the shape of a row, such as [feature].

    `accumulators` holds the accumulators by kind, to go on with; `axes` names the axes of a row.
    """

    def __init__(self, address: str, axes: tuple[str, ...], accumulators: dict[str, Accumulator]):
        self.address, self.axes, self.accumulators = address, axes, accumulators

    @cached_property
    def _results(self) -> dict[str, Tensor]:
        return {name: value for one in self.accumulators.values() for name, value in one.result().items()}

    @property
    def shape(self) -> tuple[int, ...]:
        return self.accumulators["count"].shape

    @property
    def count(self) -> int:
        """Rows that were counted."""
        return self.accumulators["count"].count

    @property
    def skipped(self) -> int:
        """Rows that were left out since they held NaN or infinity."""
        return self.accumulators["count"].skipped

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._results:
            raise UnknownName(f"'{name}' was not collected at {self.address}: {did_you_mean(name, self._results)}")
        return self._results[name]

    def __contains__(self, name: object) -> bool:
        return name in self._results

    def __iter__(self) -> Iterator[str]:
        return iter(self._results)

    def __len__(self) -> int:
        return len(self._results)

    def __repr__(self) -> str:
        return f"SiteStatistics({self.address} {list(self.shape)}, {self.count:,} rows: {', '.join(self)})"


class Statistics(Mapping[str, SiteStatistics]):
    """Statistics by site, in order of execution, as `optrode.stats` gives them.

    `info` says what was measured: model, data, what a row is, positions, mask. `cross` holds `CrossMoments` by pair of
    sites; `tokens` the text of every token that an example names.
    """

    def __init__(
        self,
        sites: dict[str, SiteStatistics],
        info: dict[str, Any],
        cross: dict[tuple[str, str], CrossMoments] | None = None,
        tokens: dict[int, str] | None = None,
    ):
        self._sites, self.info, self.cross, self.tokens = sites, info, cross or {}, tokens or {}

    def __getitem__(self, site: str) -> SiteStatistics:
        if site not in self._sites:
            raise UnknownSite(f"site '{site}' was not measured: {did_you_mean(site, self._sites)}")
        return self._sites[site]

    def __contains__(self, site: object) -> bool:
        return site in self._sites

    def __iter__(self) -> Iterator[str]:
        return iter(self._sites)

    def __len__(self) -> int:
        return len(self._sites)

    @property
    def count(self) -> int:
        """Rows that were counted at the first site (a site leaves out rows with NaN or infinity)."""
        return next(iter(self._sites.values())).count

    def merge(self, *others: Statistics) -> Statistics:
        """What one pass over all the data would have given, in any order; all stay as they are.

        Raises `BadInput` where models, positions, masks, sites or what was collected differ.
        """
        merged = self
        for other in others:
            merged = merged._with(other)
        return merged

    def _with(self, other: Statistics) -> Statistics:
        for key in _SAME:
            if self.info.get(key) != other.info.get(key):
                raise BadInput(
                    f"statistics of another {key} cannot be merged: {self.info.get(key)} and {other.info.get(key)}"
                )
        if list(self) != list(other) or set(self.cross) != set(other.cross):
            raise BadInput("statistics of other sites cannot be merged: measure the same ones")
        sites = {address: _merged(site, other[address]) for address, site in self.items()}
        cross = {pair: moments.merge(other.cross[pair]) for pair, moments in self.cross.items()}
        data = sorted({*self.info.get("data", ()), *other.info.get("data", ())})
        return Statistics(sites, {**self.info, "data": data}, cross, {**self.tokens, **other.tokens})

    # Looking ----------------------------------------------------------------------------------------------------------

    def examples(self, site: str, unit: int | tuple[int, ...]) -> pd.DataFrame:
        """The examples at which a unit is largest: value, document, example, position, token.

        Needs `top` or `extremes` among what was collected; raises `UnknownName` without.
        """
        import pandas as pd

        found = self[site]
        place = unit if isinstance(unit, tuple) else (unit,)
        if len(place) != len(found.shape) or any(
            not 0 <= n < size for n, size in zip(place, found.shape, strict=False)
        ):
            raise BadInput(f"{site} has no unit {unit}: its shape is {list(found.shape)}")
        if "top" in found:
            everyone: Any = (slice(None), *place)
            values, where = found["top"][everyone], found["top_where"][everyone]
        else:
            values, where = found["highest"][place][None], found["highest_where"][place][None]
        frame = pd.DataFrame(where.numpy(), columns=list(WHERE))
        frame.insert(0, "value", values.numpy())
        frame["text"] = [self.tokens.get(int(token), "") for token in frame["token"]]
        return frame[~frame["value"].isna()]

    def to_pandas(self, site: str | None = None) -> pd.DataFrame:
        """One row for each site with what sums it up; with a `site`, one row for each of its units."""
        from .tables import site_table, unit_table

        return site_table(self) if site is None else unit_table(self, self[site])

    def to_xarray(self, sites: str | Sequence[str] | None = None) -> xr.Dataset:
        """A labelled dataset with an axis of sites: one variable for each statistic.

        Raises `BadInput` for sites of different shapes: name some of one shape.
        """
        from .tables import dataset

        return dataset(self, self.matching(sites))

    def matching(self, sites: str | Sequence[str] | None) -> list[str]:
        """The sites that patterns such as `layers.*.out` select; all for None. Raises `UnknownSite`."""
        if sites is None:
            return list(self)
        patterns = [sites] if isinstance(sites, str) else list(sites)
        exact = [pattern for pattern in patterns if pattern in self]
        rest = [pattern for pattern in patterns if pattern not in exact]
        layers = [int(address.split(".")[1]) for address in self if address.startswith("layers.")]
        plain = [address for address in self if not parse(address).raw]
        chosen = select(rest, plain, max(layers, default=-1) + 1) if rest else []
        return [address for address in self if address in exact or address in chosen]

    # Files ------------------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file (`.stats` by custom); it is whole or absent."""
        sites, tensors = [], {}
        for number, site in enumerate(self.values()):
            parts = {kind: one.described() for kind, one in site.accumulators.items()}
            sites.append({"address": site.address, "axes": list(site.axes), "accumulators": parts})
            for kind, one in site.accumulators.items():
                tensors.update({f"{number}/{kind}/{name}": value for name, value in one.state_dict().items()})
        for number, moments in enumerate(self.cross.values()):
            tensors.update({f"cross/{number}/{name}": value for name, value in moments.state_dict().items()})
        described = {
            "format": FORMAT, "version": __version__, "info": self.info, "sites": sites,
            "cross": [{"sites": list(pair), **moments.described()} for pair, moments in self.cross.items()],
            "tokens": {str(token): text for token, text in sorted(self.tokens.items())},
        }  # fmt: skip
        return write_file(path, described, tensors)

    @classmethod
    def load(cls, path: str | Path) -> Statistics:
        """Read what `save` wrote. Raises `MissingFile`, and `BadFile` for a damaged, foreign or later one."""
        path = Path(path)
        described, tensors = read_file(path)
        if described.get("format") != FORMAT:
            raise BadFile(
                f"'{path.name}' has format {shown(described.get('format'))}, this version reads {FORMAT}: "
                "update optrode"
            )
        try:
            return _built(described, tensors)
        except (LookupError, ArithmeticError, TypeError, ValueError, AttributeError, RuntimeError) as problem:
            raise BadFile(f"'{path.name}' is damaged ({type(problem).__name__})") from problem

    def _repr_html_(self) -> str:
        from ..notebook.statistics import measured
        from .summary import summary

        return measured((self, lambda: summary(self)))

    def __repr__(self) -> str:
        first = next(iter(self._sites.values()), None)
        if first is None:
            return "Statistics of no site"
        where = first.address if len(self) == 1 else f"{len(self)} sites, {first.address} to {list(self)[-1]}"
        rows = in_words(self.count, self.info.get("unit") or "row")
        lines = [f"Statistics of {self.info.get('model')}: {rows} at {where}"]
        lines.append(f"  {', '.join(first)}")
        skipped = sum(site.skipped for site in self.values())
        return "\n".join(lines + ([f"  {skipped:,} rows with NaN or infinity were left out"] if skipped else []))


def _merged(site: SiteStatistics, other: SiteStatistics) -> SiteStatistics:
    if set(site.accumulators) != set(other.accumulators):
        raise BadInput("statistics of which other things were collected cannot be merged: collect the same")
    parts = {kind: one.merge(other.accumulators[kind]) for kind, one in site.accumulators.items()}
    return SiteStatistics(site.address, site.axes, parts)


def _built(described: dict[str, Any], tensors: dict[str, Tensor]) -> Statistics:
    sites, cross = {}, {}
    for number, entry in enumerate(described["sites"]):
        parts = {
            kind: made(settings, _under(tensors, f"{number}/{kind}/"))
            for kind, settings in entry["accumulators"].items()
        }
        if any(kind != one.kind for kind, one in parts.items()) or "count" not in parts:
            raise ValueError("accumulators under names of others, or without a count")
        sites[entry["address"]] = SiteStatistics(entry["address"], tuple(entry["axes"]), parts)
    for number, entry in enumerate(described["cross"]):
        first, second = map(sizes, entry["shapes"])
        check_size(prod(first) * prod(second), _under(tensors, f"cross/{number}/"))
        moments = CrossMoments(first, second)
        moments.load_state_dict(_under(tensors, f"cross/{number}/"))
        cross[entry["sites"][0], entry["sites"][1]] = moments
    tokens = {int(token): text for token, text in described["tokens"].items()}
    return Statistics(sites, _info(described["info"]), cross, tokens)


def _info(said: Any) -> dict[str, Any]:
    """What was measured, as a file says it. Raises `ValueError`."""
    data = said.get("data", []) if isinstance(said, dict) else None
    if not isinstance(data, list) or not all(isinstance(part, str) for part in data):
        raise ValueError("an account of what was measured that is none")
    if not all(isinstance(said.get(name), str | None) for name in ("model", "unit")):
        raise ValueError("a model or kind of row that is no text")
    return said


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
