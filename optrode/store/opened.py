"""`Store`: activations on disk, read by site and row. Nothing is loaded but what is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..errors import BadFile, BadInput, MissingFile, UnknownSite, did_you_mean
from ..sites import parse, select
from ..stats.rows import in_words
from .gathering import MappedRows
from .layout import StoredSite
from .receipts import INDEX, STORE, Receipt, store_hash, unsealed
from .receipts import parse as parse_json
from .recipe import Recipe
from .rows import Rows, SiteRows, as_index
from .run import receipts_in
from .shards import Shard
from .shuffle import Shuffled
from .storage import Storage, storage_at

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from .verify import Fault


class Store:
    """Activations on disk: rows (tokens, patches or examples) by site.

    `store["layers.15.out"][1000:2000]` gives rows as a tensor; `shuffled` and `batches` give all of them, `metadata`
    says what they are. `recipe` holds every setting, the model's fingerprint and the site equations.

    With `check`, checksums are compared the first time a site of a shard is read, and damage is a `BadFile`.
    """

    def __init__(self, storage: Storage, recipe: Recipe, receipts: Sequence[Receipt], check: bool = False):
        self.storage, self.check = storage, check
        self._recipe = recipe
        self._sites = {site.address: site for site in recipe.sites}
        self.shards: list[Shard] = []
        first = 0
        for receipt in receipts:
            self.shards.append(Shard(storage, receipt, self._sites, first, check))
            first += receipt.rows
        self._rows = first
        self._gathering: dict[str, MappedRows | None] = {}
        self._ends = torch.tensor([shard.first_row + shard.rows for shard in self.shards], dtype=torch.long)

    def __len__(self) -> int:
        """Number of rows."""
        return self._rows

    @property
    def sites(self) -> tuple[str, ...]:
        """Addresses of the sites, in order of execution."""
        return tuple(self._sites)

    def site(self, address: str) -> StoredSite:
        """What is stored of a site: equation, axes and shape of a row, dtypes."""
        if address not in self._sites:
            raise UnknownSite(f"site '{address}' is not in this store: {did_you_mean(address, self._sites)}")
        return self._sites[address]

    @property
    def unit(self) -> str:
        """What a row is: `token`, `patch` or `example`."""
        return self.recipe["unit"]

    @property
    def recipe(self) -> dict[str, Any]:
        """Every setting that decides the numbers, with the model's fingerprint and the hash of the data."""
        return self._recipe.entries

    @property
    def origin(self) -> dict[str, Any]:
        """What model and data were called when the harvest began."""
        return self._recipe.origin

    @property
    def made(self) -> dict[str, Any]:
        """Releases and number of threads that the harvest began with."""
        return self._recipe.made

    @property
    def complete(self) -> bool:
        """Whether every shard is there; a harvest that was stopped, or whose bad shards were dropped, is not."""
        numbers = [shard.number for shard in self.shards]
        return bool(self.shards) and self.shards[-1].receipt.ends and numbers == list(range(len(numbers)))

    @property
    def hash(self) -> str:
        """Hash of all values, rows and settings; equal for an interrupted and an undisturbed harvest."""
        return store_hash(self.recipe, [shard.receipt for shard in self.shards])

    @property
    def nbytes(self) -> int:
        """Bytes of all values."""
        return len(self) * sum(site.row_bytes for site in self._sites.values())

    def __getitem__(self, address: str) -> SiteRows:
        """One site's rows; see `SiteRows`."""
        return SiteRows(self, self.site(address))

    def matching(self, sites: str | Sequence[str] | None) -> list[str]:
        """The addresses that patterns such as `layers.*.out` select; all for None. Raises `UnknownSite`."""
        if sites is None:
            return list(self._sites)
        patterns = [sites] if isinstance(sites, str) else list(sites)
        raw = [text for text in patterns if text in self._sites]
        rest = [text for text in patterns if text not in raw]
        layers = layers_of(self._sites)
        chosen = select(rest, [a for a in self._sites if not parse(a).raw], max(layers, default=-1) + 1) if rest else []
        return [address for address in self._sites if address in raw or address in chosen]

    # Rows -------------------------------------------------------------------------------------------------------------

    def read(self, address: str, rows: Rows) -> Tensor:
        """Rows of one site, [row, ...]: a slice, or a list or tensor of row numbers (negative ones from the end)."""
        self.site(address)
        if isinstance(rows, slice) and rows.step in (None, 1):
            first, stop, _ = rows.indices(len(self))
            parts = [
                shard.values(address, max(first - shard.first_row, 0), min(stop - shard.first_row, shard.rows))
                for shard in self.shards
                if shard.first_row < stop and first < shard.first_row + shard.rows and first < stop
            ]
            if parts:
                return parts[0] if len(parts) == 1 else torch.cat(parts)
        return self.gather([address], as_index(rows, len(self)))[address]

    def gather(self, sites: Sequence[str], index: Tensor) -> dict[str, Tensor]:
        """Rows of several sites by their numbers (int64 [row], each in the store): [row, ...] by site."""
        if not len(index):
            found = (self._sites[address] for address in sites)
            return {site.address: torch.empty(0, *site.shape, dtype=site.read_dtype) for site in found}
        rows = index.numpy()
        owner = np.searchsorted(self._ends.numpy(), rows, side="right")
        return {address: self._gathered(address, rows, owner) for address in sites}

    def _gathered(self, address: str, rows: np.ndarray, owner: np.ndarray) -> Tensor:
        site, mapped = self.site(address), self._mapped_rows(address)
        if self.check and mapped is not None:
            for number in np.unique(owner).tolist():
                self.shards[number].site(address)
        if mapped is not None and not site.scaled:
            return mapped.gather(rows, owner)
        out = torch.empty(len(rows), *site.shape, dtype=site.read_dtype)
        raw = mapped.gather(rows, owner) if mapped is not None else None
        for number in np.unique(owner).tolist():
            shard, places = self.shards[number], torch.from_numpy(np.flatnonzero(owner == number))
            own = torch.from_numpy(rows)[places] - shard.first_row
            out[places] = shard.gather(address, own) if raw is None else shard.restore(address, raw[places], own)
        return out

    def _mapped_rows(self, address: str) -> MappedRows | None:
        """Rows of all shards at once; None where files cannot be mapped."""
        if address not in self._gathering:
            can = bool(self.shards) and self.shards[0].whole(address) is not None
            self._gathering[address] = MappedRows(self.shards, self.site(address)) if can else None
        return self._gathering[address]

    def shuffled(
        self, batch_size: int = 4096, *, sites: str | Sequence[str] | None = None, seed: int = 0, epoch: int = 0
    ) -> Shuffled:
        """Batches in a random order of single rows, each row once; other seeds and epochs give other orders.

        Iterate over it, or give it to a `DataLoader` with `batch_size=None`. A batch is a dictionary of [row, ...] by
        site, with `row`. Memory: one batch. On local disks rows are read where they lie, which is fast from the page
        cache and from flash; on object storage each row is a request, so copy the store first.
        """
        if batch_size < 1:
            raise BadInput(f"batch_size must be at least 1, not {batch_size}")
        return Shuffled(self, self.matching(sites), batch_size, seed, epoch)

    def batches(
        self, batch_size: int = 4096, *, sites: str | Sequence[str] | None = None
    ) -> Iterator[dict[str, Tensor]]:
        """Batches in the order of the data, in the form of those of `shuffled`. A batch never spans two shards."""
        chosen = self.matching(sites)
        for shard in self.shards:
            for first in range(0, shard.rows, batch_size):
                stop = min(first + batch_size, shard.rows)
                values = {address: shard.values(address, first, stop) for address in chosen}
                yield {**values, "row": torch.arange(shard.first_row + first, shard.first_row + stop)}

    # What the rows are ------------------------------------------------------------------------------------------------

    def metadata(self, rows: Rows | None = None) -> pd.DataFrame:
        """What rows are, indexed by row: document, example, position, token_id, token, text, role, special, mask.

        `mask` marks the rows that means and probes should use: neither special tokens nor sinks (rows whose norm is
        over ten times the median of their shard at any site). All rows by default, about 60 bytes each.
        """
        import pandas as pd

        if rows is None:
            frames = [shard.metadata() for shard in self.shards]
            return pd.concat(frames) if frames else pd.DataFrame()
        index = as_index(rows, len(self))
        owner = torch.searchsorted(self._ends, index, right=True)
        frames = [self.shards[n].metadata().loc[index[owner == n].numpy()] for n in torch.unique(owner).tolist()]
        # A row may be asked for twice.
        whole = pd.concat(frames) if frames else pd.DataFrame()
        return whole[~whole.index.duplicated()].loc[index.numpy()] if frames else whole

    def documents(self) -> pd.DataFrame:
        """One entry for each example: document, piece of it, source, text, and the rows [row, row + rows)."""
        import pandas as pd

        frames = []
        for shard in self.shards:
            frame = shard.documents.to_pandas(use_threads=False).drop(columns="block")
            frame["row"] += shard.first_row
            frames.append(frame)
        return pd.concat(frames).set_index("example") if frames else pd.DataFrame()

    def rounding(self) -> pd.DataFrame:
        """What rounding did, by shard and site: `max_abs` in units of the activation, and `relative_rms`."""
        import pandas as pd

        found = {
            (shard.number, site): figures
            for shard in self.shards for site, figures in shard.receipt.rounding.items()
        }  # fmt: skip
        frame = pd.DataFrame.from_dict(found, orient="index")
        frame.index = pd.MultiIndex.from_tuples(list(found), names=["shard", "site"])
        return frame

    def to_xarray(self, address: str, rows: Rows = slice(None)) -> xr.DataArray:
        """Rows of one site as a labelled array; its coordinates say what the rows are. bfloat16 becomes float32."""
        import xarray as xr

        index, values, site = as_index(rows, len(self)), self.read(address, rows), self.site(address)
        values = values.float() if values.dtype == torch.bfloat16 else values
        frame = self.metadata(index)
        coordinates: dict[str, Any] = {"row": index.numpy()}
        coordinates |= {name: ("row", np.asarray(frame[name])) for name in frame.columns}
        attributes = {"site": address, "equation": site.equation, "model": str(self.origin["model"])}
        return xr.DataArray(values.numpy(), coordinates, ("row", *site.axes), address, attributes)

    # Damage -----------------------------------------------------------------------------------------------------------

    def verify(self) -> list[Fault]:
        """Every damage there is, with shard and site; reads the whole store once. See `optrode.store.verify`."""
        from .verify import verify

        return verify(self.storage)

    def __getstate__(self) -> dict[str, Any]:
        """Workers open the store for themselves."""
        return {"where": self.storage.where, "check": self.check}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(open_store(state["where"], check=state["check"]).__dict__)

    def _repr_html_(self) -> str:
        from ..notebook.stores import store

        return store(self)

    def __repr__(self) -> str:
        sites = self.sites[0] if len(self.sites) == 1 else f"{len(self.sites)} sites"
        state = "" if self.complete else ", not complete"
        return (
            f"Store('{self.storage.where}': {in_words(len(self), self.unit)} x {sites}, {self.recipe['dtype']}, "
            f"{self.nbytes / 2**20:,.1f} MiB{state})"
        )


def open_store(where: str | PathLike[str], *, check: bool = False) -> Store:
    """Open a store: a folder or an fsspec URL. A harvest that is not complete opens too, with the rows that it has.

    `check=True` compares checksums the first time a site of a shard is read. Raises `MissingFile`, and `BadFile` where
    what describes the store is damaged. Costs two small reads.
    """
    storage = storage_at(where)
    names = storage.names()
    if STORE not in names:
        raise MissingFile(f"there is no store at '{storage.where}': make one with op.harvest or optrode read --to")
    recipe = Recipe.from_bytes(storage.read(STORE))
    if INDEX not in names:
        return Store(storage, recipe, _sorted(receipts_in(storage, names)), check)
    index = unsealed(parse_json(storage.read(INDEX), INDEX), INDEX)
    try:
        receipts = [Receipt.from_json(entry, INDEX) for entry in index["shards"]]
    except (LookupError, TypeError, AttributeError) as problem:
        raise BadFile(f"'{INDEX}' is no list of shards that this version reads: update optrode") from problem
    return Store(storage, recipe, receipts, check)


def layers_of(addresses: Iterable[str]) -> list[int]:
    """The numbers of the blocks that addresses name."""
    numbers = [address.split(".")[1] for address in addresses if address.startswith("layers.")]
    return [int(number) for number in numbers if number.isdecimal() and len(number) < 10]


def _sorted(receipts: dict[int, Receipt]) -> list[Receipt]:
    return [receipts[number] for number in sorted(receipts)]
