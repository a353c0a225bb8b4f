"""What a store holds of a site, and where in a shard's file it stands.

A shard's values are one safetensors file: a header of JSON, then the tensors one after the other, largest numbers first
so that each is aligned. A tensor has the rows of the shard, in the order of the data; for `float16_scaled` a second
one, `ADDRESS#scale`, has the scales of each block of rows. A block is what one forward gave.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch

from ..messages import shown
from ..sites import parse

SCALE = "#scale"
# Larger numbers are no size of anything, and their products would not fit into 64 bits.
_MOST = 2**31
_SAFE = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


@dataclass(frozen=True)
class StoredSite:
    """One site of a store. `axes` and `shape` are those of a row; `kept` is the dtype on disk, `own` the network's."""

    address: str
    equation: str
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    own: torch.dtype
    kept: torch.dtype
    scaled: bool = False

    @property
    def width(self) -> int:
        return prod(self.shape)

    @property
    def row_bytes(self) -> int:
        return self.width * self.kept.itemsize

    @property
    def read_dtype(self) -> torch.dtype:
        """The dtype in which rows are given: scaled values are multiplied out."""
        return torch.float32 if self.scaled else self.kept

    def as_json(self) -> dict[str, Any]:
        return {
            "address": self.address, "equation": self.equation, "axes": list(self.axes), "shape": list(self.shape),
            "own": str(self.own).removeprefix("torch."), "kept": str(self.kept).removeprefix("torch."),
            "scaled": self.scaled,
        }  # fmt: skip

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> StoredSite:
        """Raises `ValueError`, `TypeError`, `KeyError` for what `as_json` does not write."""
        own, kept, axes, shape = _dtype(found["own"]), _dtype(found["kept"]), found["axes"], found["shape"]
        texts = [found["address"], found["equation"], *axes]
        if not all(isinstance(text, str) for text in texts) or type(found["scaled"]) is not bool:
            raise TypeError("a site of other entries")
        if len(axes) != len(shape) or not all(type(size) is int and 0 < size < _MOST for size in shape):
            raise ValueError("a site whose shape is none")
        parse(found["address"])
        return cls(found["address"], found["equation"], tuple(axes), tuple(shape), own, kept, found["scaled"])


def _dtype(name: Any) -> torch.dtype:
    # Not looked up in torch: some of its names are modules that are imported when somebody asks for them.
    if not isinstance(name, str) or name not in _NAMES:
        raise ValueError(f"the dtype {shown(name)}")
    return _NAMES[name]


_NAMES = {str(dtype).removeprefix("torch."): dtype for dtype in _SAFE}


@dataclass(frozen=True)
class Place:
    """Where one tensor stands in the data part of a shard's file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int

    @property
    def stop(self) -> int:
        return self.start + prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class ShardLayout:
    """Places of all tensors of a shard with this number of rows and blocks."""

    places: dict[str, Place]

    @classmethod
    def of(cls, sites: Sequence[StoredSite], rows: int, blocks: int) -> ShardLayout:
        wanted = [(site.address, site.kept, (rows, *site.shape)) for site in sites]
        wanted += [(site.address + SCALE, torch.float32, (blocks, *site.shape)) for site in sites if site.scaled]
        places, start = {}, 0
        for name, dtype, shape in sorted(wanted, key=lambda item: -item[1].itemsize):
            places[name] = Place(dtype, shape, start)
            start = places[name].stop
        return cls(places)

    @property
    def size(self) -> int:
        """Bytes of the data part."""
        return max((place.stop for place in self.places.values()), default=0)

    def header(self, metadata: dict[str, str]) -> bytes:
        """What stands before the data: the length of the JSON in 8 bytes, and the JSON."""
        entries: dict[str, Any] = {"__metadata__": metadata}
        for name, place in self.places.items():
            entries[name] = {
                "dtype": _SAFE[place.dtype], "shape": list(place.shape), "data_offsets": [place.start, place.stop],
            }  # fmt: skip
        text = json.dumps(entries, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text
