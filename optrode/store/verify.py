"""Finding damage in a store, and repairing it: what is bad is dropped and made again.

Every byte of every file is covered by a checksum. The settings stand in the header of each shard too, and the receipts
in the index too, so that one copy can be restored from the other.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

from ..engine.progress import track
from ..errors import BadFile, BadInput, MissingFile
from ..host import Host
from ..messages import one_line
from .documents import Data
from .opened import Store, open_store
from .receipts import INDEX, STORE, Names, Receipt, dump, parse, shard_of, store_hash, unsealed
from .recipe import Recipe
from .run import sha256, write_index
from .shards import Shard
from .storage import Storage, storage_at


@dataclass(frozen=True)
class Fault:
    """One damage: the file, the shard it belongs to, the site where it is one of values, and what is wrong."""

    file: str
    shard: int | None
    site: str | None
    what: str

    def __str__(self) -> str:
        where = f"shard {self.shard}, {self.site or self.file}" if self.shard is not None else self.file
        return f"{where}: {self.what}"


@dataclass
class _Found:
    """What of a store can be trusted."""

    recipe: Recipe | None = None
    receipts: dict[int, Receipt] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def fault(self, file: str, what: str, shard: int | None = None, site: str | None = None) -> None:
        self.faults.append(Fault(file, shard, site, what))


def verify(where: str | PathLike[str] | Storage) -> list[Fault]:
    """Every damage of a store; an empty list where there is none. Reads all of it once.

    A harvest that was stopped has no fault for that. Raises `MissingFile` where there is no store.
    """
    return _examined(where if isinstance(where, Storage) else storage_at(where)).faults


def _examined(storage: Storage) -> _Found:
    names, found = storage.names(), _Found()
    if not any(name in (STORE, INDEX) or shard_of(name) is not None for name in names):
        raise MissingFile(f"there is no store at '{storage.where}'")
    indexed = _index(storage, names, found)
    receipts = {**indexed, **_receipts(storage, names, set(indexed), found)}
    found.recipe = _recipe(storage, names, receipts, found)
    if found.recipe is None:
        return found
    sites = {site.address: site for site in found.recipe.sites}
    for number in track(sorted(receipts), "verifying"):
        faults = len(found.faults)
        try:
            for fault in _shard_faults(Shard(storage, receipts[number], sites, 0, check=False), names, found.recipe):
                found.faults.append(fault)
        except BadFile as problem:
            # Not damaged by chance: what it says fits its hashes, and not the rest of the store.
            found.fault(receipts[number].names.receipt, f"does not fit its files ({one_line(problem)})", number)
        if len(found.faults) == faults:
            found.receipts[number] = receipts[number]
    if indexed and not found.faults:
        _check_hash(storage, found)
    return found


def _index(storage: Storage, names: set[str], found: _Found) -> dict[int, Receipt]:
    if INDEX not in names:
        return {}
    try:
        entries = unsealed(parse(storage.read(INDEX), INDEX), INDEX)["shards"]
        receipts = [Receipt.from_json(entry, INDEX) for entry in entries]
    except (BadFile, LookupError, TypeError, AttributeError) as problem:
        found.fault(INDEX, f"damaged ({type(problem).__name__})")
        return {}
    return {receipt.shard: receipt for receipt in receipts}


def _receipts(storage: Storage, names: set[str], indexed: set[int], found: _Found) -> dict[int, Receipt]:
    receipts = {}
    numbers = {number for number in map(shard_of, names) if number is not None} if indexed else set()
    receipted = {n for n in map(shard_of, names) if n is not None and Names(n).receipt in names}
    for number in sorted(numbers | indexed | receipted):
        name = Names(number).receipt
        if name not in names:
            found.fault(name, "missing", number)
            continue
        try:
            receipts[number] = Receipt.from_json(parse(storage.read(name), name), name)
        except BadFile:
            found.fault(name, "damaged", number)
    return receipts


def _recipe(storage: Storage, names: set[str], receipts: dict[int, Receipt], found: _Found) -> Recipe | None:
    try:
        return Recipe.from_bytes(storage.read(STORE))
    except (BadFile, MissingFile):
        found.fault(STORE, "damaged" if STORE in names else "missing")
    for receipt in receipts.values():
        if receipt.names.values in names:
            recipe = _recipe_of(storage, receipt)
            if recipe is not None:
                return recipe
    return None


def _recipe_of(storage: Storage, receipt: Receipt) -> Recipe | None:
    """The settings as the header of a shard's file has them, if that is not damaged too."""
    import json

    try:
        if receipt.begins > storage.size(receipt.names.values):
            return None
        (header,) = storage.ranges(receipt.names.values, [(0, receipt.begins)])
        if f"{zlib.crc32(header):08x}" != receipt.header:
            return None
        said = json.loads(header[8:])["__metadata__"]["optrode"]
        return Recipe.from_bytes(said.encode("utf-8", "surrogatepass"))
    except (BadFile, LookupError, TypeError, ValueError, AttributeError, RecursionError):
        return None


def _shard_faults(shard: Shard, names: set[str], recipe: Recipe) -> Iterator[Fault]:
    receipt, storage, number = shard.receipt, shard.storage, shard.number
    missing = [name for name in receipt.names.all[1:] if name not in names]
    if missing:
        yield from (Fault(name, number, None, "missing") for name in missing)
        return
    bad = False
    for kind, name in (("tokens", receipt.names.tokens), ("documents", receipt.names.documents)):
        if sha256(storage.read(name)) != receipt.tables[kind]:
            bad = True
            yield Fault(name, number, None, "damaged")
    size, file = shard.receipt.begins + shard._layout.size, receipt.names.values
    if storage.size(file) != size:
        yield Fault(file, number, None, f"has {storage.size(file)} bytes, not {size}")
        return
    (header,) = storage.ranges(file, [(0, receipt.begins)])
    if f"{zlib.crc32(header):08x}" != receipt.header:
        yield Fault(file, number, None, "its header is damaged")
    if bad:
        # Which rows a block has is told by the table that is damaged.
        return
    for site in recipe.sites:
        blocks = shard.bad_blocks(site.address)
        if blocks:
            yield Fault(file, number, site.address, f"damaged in {len(blocks)} of {receipt.blocks} blocks")


def _check_hash(storage: Storage, found: _Found) -> None:
    assert found.recipe is not None
    receipts = [found.receipts[number] for number in sorted(found.receipts)]
    if unsealed(parse(storage.read(INDEX), INDEX), INDEX).get("hash") != store_hash(found.recipe.entries, receipts):
        found.fault(INDEX, "its hash is not that of the shards")


@dataclass(frozen=True)
class Repair:
    """What a repair did: the faults that it found, the shards it dropped, and the store as it is now."""

    faults: list[Fault]
    dropped: list[int]
    store: Store


def repair(where: str | PathLike[str], model: Host | None = None, data: Data | None = None) -> Repair:
    """Drop what is damaged; with a model, make it again, and whatever else is missing.

    `data` defaults to the path that the harvest was given. Settings are those of the store. Raises `StoreMismatch`
    where model or data are other ones, `BadFile` where the settings are lost (no shard is whole).
    """
    storage = storage_at(where)
    if not storage.names():
        raise MissingFile(f"there is no store at '{storage.where}'")
    with storage.lock():
        storage.sweep()
        found = _examined(storage)
        if found.recipe is None:
            raise BadFile(f"'{storage.where}' cannot be repaired: what it holds is told by no file any more")
        dropped = _drop(storage, found)
    if model is not None:
        _again(model, storage, found.recipe, data)
    return Repair(found.faults, dropped, open_store(where))


def _drop(storage: Storage, found: _Found) -> list[int]:
    """Leave whole shards only, each with its receipt, and settings and index that agree with them."""
    assert found.recipe is not None
    names, dropped = storage.names(), set()
    if any(fault.file == STORE for fault in found.faults):
        storage.write(STORE, dump(found.recipe.as_json()))
    receipts = dict(found.receipts)
    for fault in found.faults:
        # A receipt alone can be had back from the index.
        if fault.shard is not None and fault.shard not in receipts:
            dropped.add(fault.shard)
    for name in sorted(names, key=lambda name: not name.endswith(".json")):
        number = shard_of(name)
        if number is not None and number not in receipts:
            storage.remove(name)
            dropped.add(number)
    for number, receipt in receipts.items():
        if any(fault.file == Names(number).receipt for fault in found.faults):
            storage.write(Names(number).receipt, dump(receipt.as_json()))
    storage.remove(INDEX)
    numbers = sorted(receipts)
    if numbers and numbers == list(range(len(numbers))) and receipts[numbers[-1]].ends:
        write_index(storage, found.recipe, [receipts[number] for number in numbers])
    storage.settle()
    return sorted(dropped)


def _again(model: Host, storage: Storage, recipe: Recipe, data: Data | None) -> None:
    from .harvest import harvest

    entries, origin = recipe.entries, recipe.origin
    given: Any = data if data is not None else origin["data"]
    if given is None:
        raise BadInput("the harvest was given a list: give the same list as data")
    harvest(
        model,
        given,
        [site["address"] for site in entries["sites"]],
        to=storage.where,
        dtype=entries["dtype"],
        tokens=entries["tokens"],
        positions=entries["positions"],
        context=entries["context"],
        template=entries["template"],
        system=entries["system"],
        column=origin["column"],
        shard_rows=entries["shard_rows"],
        tokens_per_forward=entries["tokens_per_forward"],
    )
