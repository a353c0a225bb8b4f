"""Statistics of a store, shard by shard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..engine.progress import Amount
from ..errors import NotSupported
from ..positions import Positions
from .choice import Wanted
from .feeding import Feeding, measured
from .rows import several
from .statistics import Statistics

if TYPE_CHECKING:
    from ..store import Shard, Store

# What is read at once: so many rows, and of large ones so many values.
_ROWS, _VALUES = 4096, 2**24


def of_store(
    store: Store,
    sites: str | Sequence[str] | None,
    wanted: Sequence[Wanted],
    cross: Sequence[tuple[str, str]],
    positions: Positions | None,
    mask: str,
    tokens: int | None,
) -> Statistics:
    if positions is not None:
        raise NotSupported("positions are selected when a store is harvested: op.harvest(..., positions=...)")
    chosen = measured((store.site(address) for address in store.matching(sites)), named=sites is not None)
    feeding = Feeding(chosen, wanted, cross)
    known: dict[int, str] = {}
    left = len(store) if tokens is None else min(tokens, len(store))
    with Amount("measuring", left, several(store.unit)) as bar:
        for shard in store.shards:
            rows = min(left, shard.rows)
            left -= rows
            if rows:
                _take_shard(shard, rows, feeding, mask, known, bar)
    info = {
        "model": store.origin["model"], "weights": store.recipe["model"], "data": [store.storage.where],
        "unit": store.unit, "positions": store.recipe["positions"], "mask": mask,
    }  # fmt: skip
    return feeding.statistics(info, known)


def _take_shard(shard: Shard, rows: int, feeding: Feeding, mask: str, known: dict[int, str], bar: Amount) -> None:
    frame = shard.metadata()
    where = np.stack([np.asarray(frame[name], np.int64) for name in ("document", "example", "position", "token_id")], 1)
    keep = shard.mask if mask == "usual" else None
    step = max(1, min(_ROWS, _VALUES // feeding.largest_row))
    for first in range(0, rows, step):
        stop = min(first + step, rows)
        for address in feeding.addresses:
            counts = None if keep is None else keep[first:stop]
            feeding.take(address, shard.values(address, first, stop), counts, where[first:stop])
        feeding.done()
        bar.add(stop - first)
    seen = frame[["token_id", "text"]].drop_duplicates("token_id")
    known.update(zip(map(int, seen["token_id"]), map(str, seen["text"]), strict=True))
