"""One shard of an opened store: rows of a site, by range or one by one, and the tables beside them."""

from __future__ import annotations

import hashlib
import zlib
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..errors import BadFile, UnknownSite, did_you_mean
from .landing import as_bytes, merged
from .layout import SCALE, ShardLayout, StoredSite
from .precision import restored
from .receipts import Names, Receipt
from .storage import Storage
from .tables import from_parquet

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

# What the tables must have for a store to be read.
_TOKENS = {"special": "boolean", "mask": "boolean"}
_DOCUMENTS = dict.fromkeys(("example", "block", "length", "row", "rows"), "integer")
# Rows that lie closer than this are fetched from object storage in one request.
_GAP_BYTES = 2**16


class Shard:
    """Rows `first_row` to `first_row + rows` of a store. Local files are mapped into memory, others are asked for
    ranges; nothing is read before it is needed."""

    def __init__(self, storage: Storage, receipt: Receipt, sites: dict[str, StoredSite], first_row: int, check: bool):
        self.storage, self.receipt, self.first_row = storage, receipt, first_row
        self.names: Names = receipt.names
        self._sites, self._check = sites, check
        self._layout = ShardLayout.of(list(sites.values()), receipt.rows, receipt.blocks)
        self._checked: set[str] = set()

    @property
    def number(self) -> int:
        return self.receipt.shard

    @property
    def rows(self) -> int:
        return self.receipt.rows

    def __len__(self) -> int:
        return self.rows

    def values(self, site: str, first: int = 0, stop: int | None = None) -> Tensor:
        """Rows [first, stop) of the shard, all by default, as a copy: [row, ...] in the store's dtype for reading."""
        stop = self.rows if stop is None else stop
        return self.restore(site, self._span(site, first, stop), slice(first, stop))

    def gather(self, site: str, index: Tensor) -> Tensor:
        """Rows by their numbers in the shard ([row] int64), as a copy."""
        return self.restore(site, self._picked(site, index), index)

    def restore(self, site: str, raw: Tensor, rows: slice | Tensor) -> Tensor:
        """Rows as they are stored, multiplied by their scales where they have some."""
        if not self._sites[site].scaled:
            return raw
        return restored(raw, self._scales(site)[self._blocks[rows]])

    def whole(self, name: str) -> Tensor | None:
        """A tensor of the file as it lies there, or None where files cannot be mapped. Not to be written to."""
        if self._mapped is None:
            return None
        place, begins = self._layout.places[name], self.receipt.begins
        return self._mapped[begins + place.start : begins + place.stop].view(place.dtype).view(place.shape)

    @property
    def tokens(self) -> pa.Table:
        """One entry for each row: document, example, position, token, text, role, special, mask. Read each time."""
        return self._table(self.names.tokens, "tokens", self.rows, _TOKENS)

    @property
    def documents(self) -> pa.Table:
        """One entry for each example, with its first `row` in this shard and its number of `rows`."""
        return self._table(self.names.documents, "documents", self.receipt.examples, _DOCUMENTS)

    def metadata(self) -> pd.DataFrame:
        """`tokens` as a frame whose index is the row in the store."""
        import pandas as pd

        frame = self.tokens.to_pandas(use_threads=False)
        frame.index = pd.RangeIndex(self.first_row, self.first_row + self.rows, name="row")
        return frame

    @cached_property
    def mask(self) -> Tensor:
        """Rows that means and probes should use: no special tokens, no sinks. bool [row]"""
        return torch.from_numpy(self.tokens["mask"].to_numpy().copy())

    # Reading ----------------------------------------------------------------------------------------------------------

    def site(self, site: str) -> StoredSite:
        """The site, its checksums compared if that is wanted. Raises `UnknownSite`, `BadFile`."""
        if site not in self._sites:
            raise UnknownSite(f"site '{site}' is not in this store: {did_you_mean(site, self._sites)}")
        if self._check and site not in self._checked:
            self.check(site)
        return self._sites[site]

    @cached_property
    def _mapped(self) -> Tensor | None:
        found = self.storage.mapped(self.names.values)
        if found is not None and len(found) < self.receipt.begins + self._layout.size:
            raise BadFile(f"{self.names.values} of '{self.storage.where}' is cut short: run optrode store repair")
        if self.receipt.begins % 8:
            raise self._damaged(self.names.values)
        return found

    def _span(self, site: str, first: int, stop: int) -> Tensor:
        stored, whole = self.site(site), self.whole(site)
        if whole is None:
            return self._fetched(stored.address, [(first, stop)])
        out = torch.empty(stop - first, *stored.shape, dtype=stored.kept)
        if stop > first:
            as_rows(out)[:] = as_rows(whole[first:stop])
        return out

    def _picked(self, site: str, index: Tensor) -> Tensor:
        stored, whole = self.site(site), self.whole(site)
        if whole is not None:
            return whole[index]
        unique, places = torch.unique(index, return_inverse=True)
        gap = _GAP_BYTES // max(1, stored.row_bytes)
        spans = _joined(unique.tolist(), gap)
        kept = torch.cat([torch.arange(first, stop) for first, stop in spans])
        values = self._fetched(stored.address, spans)
        return values[torch.searchsorted(kept, unique)[places]]

    def _fetched(self, name: str, spans: list[tuple[int, int]]) -> Tensor:
        """Rows of some spans from storage that is asked for ranges."""
        place = self._layout.places[name]
        row, start = (place.stop - place.start) // max(1, place.shape[0]), self.receipt.begins + place.start
        data = self.storage.ranges(self.names.values, [(start + a * row, start + b * row) for a, b in spans])
        joined = bytearray(b"".join(data))
        if len(joined) != sum(b - a for a, b in spans) * row:
            raise BadFile(f"{self.names.values} of '{self.storage.where}' is cut short: run optrode store repair")
        if not joined:
            return torch.empty(0, *place.shape[1:], dtype=place.dtype)
        return torch.frombuffer(joined, dtype=place.dtype).view(-1, *place.shape[1:])

    def _scales(self, site: str) -> Tensor:
        whole = self.whole(site + SCALE)
        return whole if whole is not None else self._fetched(site + SCALE, [(0, self.receipt.blocks)])

    @cached_property
    def _examples(self) -> tuple[np.ndarray, ...]:
        """Block, length, first row and number of rows of each example."""
        table = self.documents
        found = tuple(table[name].to_numpy() for name in ("block", "length", "row", "rows"))
        block, _, row, rows = found
        whole = not len(block) or (0 <= block.min() <= block.max() < self.receipt.blocks and rows.min() >= 0)
        # Examples stand one after the other.
        if not (whole and bool((row == np.cumsum(rows) - rows).all()) and int(rows.sum()) == self.rows):
            raise self._damaged(self.names.documents)
        return found

    @cached_property
    def _blocks(self) -> Tensor:
        """The block that each row is of: int64 [row]."""
        block, _, _, rows = self._examples
        return torch.from_numpy(np.repeat(block, rows).astype(np.int64))

    def _table(self, name: str, kind: str, rows: int, columns: dict[str, str]) -> pa.Table:
        data = self.storage.read(name)
        if hashlib.sha256(data).hexdigest() != self.receipt.tables[kind]:
            raise self._damaged(name)
        # As many rows as the values have bytes are the most there can be.
        if rows > self.storage.size(self.names.values):
            raise self._damaged(self.names.values)
        try:
            return from_parquet(data, rows, columns)
        except ValueError as problem:
            raise self._damaged(name) from problem

    def _damaged(self, name: str) -> BadFile:
        return BadFile(f"{name} of '{self.storage.where}' is damaged: run optrode store repair")

    # Checksums --------------------------------------------------------------------------------------------------------

    def check(self, site: str) -> None:
        """Compare a site's checksums. Raises `BadFile` naming shard and site. Costs reading the site once."""
        bad = self.bad_blocks(site)
        if bad:
            raise BadFile(
                f"shard {self.number} of '{self.storage.where}' is damaged at {site}: run optrode store repair"
            )
        self._checked.add(site)

    def bad_blocks(self, site: str) -> list[int]:
        """Numbers of the blocks of a site whose bytes are not those that were written; -1 stands for its scales."""
        whole, known = self.whole(site), self.receipt.checksums.get(site, [])
        if len(known) != self.receipt.blocks:
            return list(range(self.receipt.blocks))
        values = whole if whole is not None else self._fetched(site, [(0, self.rows)])
        data, row, bad = as_bytes(values), values[:1].nbytes, []
        for block, spans in enumerate(self._spans_of_blocks):
            checksum = 0
            for first, stop in spans:
                checksum = zlib.crc32(data[first * row : stop * row], checksum)
            if f"{checksum:08x}" != known[block]:
                bad.append(block)
        if self._sites[site].scaled:
            scales = zlib.crc32(as_bytes(self._scales(site)))
            bad += [-1] if f"{scales:08x}" != self.receipt.scales.get(site) else []
        return bad

    @cached_property
    def _spans_of_blocks(self) -> list[list[tuple[int, int]]]:
        """The rows of each block, in the order in which the forward had them."""
        block, lengths, first, rows = self._examples
        # Within a forward examples stand by length, and by number where that is the same.
        order = np.lexsort((np.arange(len(block)), lengths, block))
        spans: list[list[tuple[int, int]]] = [[] for _ in range(self.receipt.blocks)]
        for number in order.tolist():
            spans[block[number]].append((int(first[number]), int(first[number] + rows[number])))
        return [merged(found) for found in spans]


def as_rows(values: Tensor) -> np.ndarray:
    """The memory of a tensor as one item for each row, whatever its dtype: numpy moves whole rows fastest."""
    array: np.ndarray = values.view(len(values), -1).view(torch.uint8).numpy()
    return array.view(f"V{array.shape[1]}").reshape(-1)


def _joined(rows: list[int], gap: int) -> list[tuple[int, int]]:
    """Spans over sorted rows; rows that lie within `gap` of each other share one."""
    spans: list[tuple[int, int]] = []
    for row in rows:
        if spans and row - spans[-1][1] <= gap:
            spans[-1] = (spans[-1][0], row + 1)
        else:
            spans.append((row, row + 1))
    return spans
