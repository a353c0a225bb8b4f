"""The small JSON files of a store: what it is (`store.json`), and what is in each shard (its receipt).

Each is written in one way only, down to the byte, so that a changed byte anywhere in them is found.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import BadFile
from .examples import Cursor

STORE = "store.json"
INDEX = "index.json"
# No shard has more of anything, and sums over many shards still fit into 64 bits.
_MOST = 2**46


def dump(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass")


def parse(text: bytes, name: str) -> dict[str, Any]:
    """What `dump` wrote. Raises `BadFile` where a byte is another."""
    try:
        value = json.loads(text)
        if isinstance(value, dict) and dump(value) == text:
            return value
    except (ValueError, RecursionError):
        pass
    raise BadFile(f"'{name}' is damaged or was not written by optrode: run optrode store verify")


def sealed(value: dict[str, Any]) -> dict[str, Any]:
    """The value with a hash of all of it under `seal`."""
    return {**value, "seal": _sha(value)}


def unsealed(value: dict[str, Any], name: str) -> dict[str, Any]:
    """The value that was sealed. Raises `BadFile` where it is another now."""
    rest = {key: part for key, part in value.items() if key != "seal"}
    if value.get("seal") != _sha(rest):
        raise BadFile(f"'{name}' is damaged: what it says does not match its own hash")
    return rest


def _sha(value: Any) -> str:
    return hashlib.sha256(dump({"": value})).hexdigest()


@dataclass(frozen=True)
class Names:
    """The files of one shard."""

    number: int

    @property
    def stem(self) -> str:
        return f"shard-{self.number:05}"

    @property
    def values(self) -> str:
        return f"{self.stem}.safetensors"

    @property
    def tokens(self) -> str:
        return f"{self.stem}.tokens.parquet"

    @property
    def documents(self) -> str:
        return f"{self.stem}.documents.parquet"

    @property
    def receipt(self) -> str:
        return f"{self.stem}.json"

    @property
    def all(self) -> tuple[str, ...]:
        return self.receipt, self.values, self.tokens, self.documents


_OF_SHARD = re.compile(r"shard-(\d{5,})\.(safetensors|tokens\.parquet|documents\.parquet|json)")


def shard_of(name: str) -> int | None:
    """The number of the shard that a file belongs to; None for other files.

    >>> shard_of("shard-00012.json"), shard_of("store.json")
    (12, None)
    """
    found = _OF_SHARD.fullmatch(name)
    return int(found[1]) if found else None


@dataclass(frozen=True)
class Receipt:
    """What one shard holds.

    `checksums[site][block]` are CRC-32 of the rows that one forward brought, `scales[site]` of all scales, `header` of
    what stands before the data, which begins at byte `begins`; `tables` are SHA-256 of the two Parquet files.
    `rounding[site]` says `max_abs` and `relative_rms`. `start` and `next` are where in the data the shard and the one
    after it begin; `ends` marks the last one.
    """

    shard: int
    rows: int
    examples: int
    blocks: int
    start: Cursor
    next: Cursor
    ends: bool
    begins: int
    header: str
    checksums: dict[str, list[str]]
    scales: dict[str, str]
    tables: dict[str, str]
    rounding: dict[str, dict[str, float]]

    @property
    def names(self) -> Names:
        return Names(self.shard)

    @property
    def content(self) -> str:
        """Hash of the values and of what the rows are, whichever release of optrode wrote them."""
        return _sha([self.rows, self.checksums, self.scales, self.tables["content"]])

    def as_json(self) -> dict[str, Any]:
        return sealed({**asdict(self), "content": self.content})

    @classmethod
    def from_json(cls, value: dict[str, Any], name: str) -> Receipt:
        try:
            rest = unsealed(value, name)
            rest.pop("content")
            found = cls(**{**rest, "start": Cursor(**rest["start"]), "next": Cursor(**rest["next"])})
            _check(found)
            return found
        except (LookupError, TypeError, AttributeError, RecursionError) as problem:
            raise BadFile(f"'{name}' is no receipt of a shard that this version reads: update optrode") from problem


def _check(found: Receipt) -> None:
    """Raises `TypeError` for other values than `as_json` writes: names of files come of them, and sizes."""
    cursors = (found.start, found.next)
    numbers = [found.shard, found.rows, found.examples, found.blocks, found.begins]
    numbers += [number for cursor in cursors for number in (cursor.document, cursor.piece)]
    if not all(type(number) is int and 0 <= number < _MOST for number in numbers) or type(found.ends) is not bool:
        raise TypeError("a number that is none")
    if not found.checksums or any(len(_texts(own)) != found.blocks for own in found.checksums.values()):
        raise TypeError("checksums of another number of blocks")
    tables = [found.tables[kind] for kind in ("tokens", "documents", "content")]
    _texts([found.header, *found.scales.values(), *tables])
    figures = [figure for own in found.rounding.values() for figure in own.values()]
    if any(isinstance(figure, bool) or not isinstance(figure, int | float) for figure in figures):
        raise TypeError("a rounding that is no number")


def _texts(values: list[Any]) -> list[Any]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError("a checksum that is none")
    return values


def store_hash(recipe: dict[str, Any], receipts: list[Receipt]) -> str:
    """Hash of everything that a store holds, for comparing two stores."""
    return _sha([recipe, [[receipt.shard, receipt.content] for receipt in receipts]])
