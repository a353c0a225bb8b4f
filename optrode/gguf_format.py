"""What a GGUF file says of itself, read value by value and never past its end.

Counts, lengths, shapes and offsets of a file may be lies, by damage or on purpose, so every one of them is compared
with the bytes that there are before anything loops over it or is allocated for it. Nothing of the tensors is read.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

from .messages import shown

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
# Type numbers of values, and how `struct` writes them.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
# The least that one field, one text of an array, or one tensor's description takes up.
_LEAST_FIELD, _LEAST_TEXT, _LEAST_TENSOR = 13, 8, 24
# A vocabulary of 256,000 tokens with scores, types and merges has some 1.5 million; each takes 300 bytes when read.
_MOST_ENTRIES = 6_000_000
_LONGEST_NAME, _MOST_AXES, _LARGEST_ALIGNMENT = 65535, 4, 2**20


class DamagedFile(ValueError):
    """What is wrong with a file, as the end of a sentence."""


@dataclass(frozen=True)
class Description:
    """A tensor before it is read. `shape`: as in the file, the fastest axis first. `start`: byte of the file."""

    name: str
    shape: tuple[int, ...]
    kind: int
    start: int


@dataclass
class Header:
    """`values`: numbers and texts by key, None for arrays, whose lengths are in `arrays`; `order`: < or >."""

    values: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, int] = field(default_factory=dict)
    tensors: tuple[Description, ...] = ()
    order: str = "<"


class _Bytes:
    """The bytes of a file, read one value after the other."""

    def __init__(self, data: Any):
        self.data, self.at, self.order = data, 0, "<"
        # Entries of arrays so far.
        self.entries = 0

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def skip(self, size: int) -> None:
        if size > self.left:
            raise DamagedFile(f"it ends {size - self.left} bytes too early")
        self.at += size

    def number(self, form: str) -> Any:
        start = self.at
        self.skip(struct.calcsize("<" + form))
        return struct.unpack_from(self.order + form, self.data, start)[0]

    def text(self, longest: int | None = None) -> str:
        length = self.number("Q")
        if longest is not None and length > longest:
            raise DamagedFile(f"a name in it has {length} bytes")
        start = self.at
        self.skip(length)
        try:
            return bytes(self.data[start : self.at]).decode()
        except UnicodeDecodeError as problem:
            raise DamagedFile("a text in its header is no UTF-8") from problem

    def enough(self, count: int, least: int, what: str) -> int:
        """The count of things that take at least so many bytes each."""
        if count > self.left // least:
            raise DamagedFile(f"it says that {count} {what} follow, for which it is too short")
        return count


def read_header(content: Any) -> Header:
    """The header of the bytes of a file, mapped or in memory. Raises `DamagedFile`.

    Costs a pass over the header alone: some tenths of a second for a large vocabulary.
    """
    data = _Bytes(content)
    data.skip(len(MAGIC))
    version = data.number("I")
    if version % 2**16 == 0:
        # Written on a machine of the other byte order.
        data.order, data.at = ">", len(MAGIC)
        version = data.number("I")
    if version not in _VERSIONS:
        raise DamagedFile(f"its version is {version}, and {' and '.join(map(str, _VERSIONS))} are known")
    described, header = data.number("Q"), Header(order=data.order)
    for _ in range(data.enough(data.number("Q"), _LEAST_FIELD, "fields")):
        _field(data, header)
    described = data.enough(described, _LEAST_TENSOR, "tensors")
    header.tensors = _placed([_description(data) for _ in range(described)], data.at, _alignment(header))
    return header


def _field(data: _Bytes, header: Header) -> None:
    name, kind = data.text(_LONGEST_NAME), data.number("I")
    if name in header.values:
        raise DamagedFile(f"it has {shown(name)} twice")
    header.values[name] = None
    if kind == _STRING:
        header.values[name] = data.text()
    elif kind == _ARRAY:
        header.arrays[name] = _skip_array(data, name)
    else:
        header.values[name] = data.number(_form(kind, name))


def _skip_array(data: _Bytes, name: str) -> int:
    kind, count = data.number("I"), int(data.number("Q"))
    data.entries += count
    if data.entries > _MOST_ENTRIES:
        raise DamagedFile(f"its arrays have over {_MOST_ENTRIES:,} entries")
    if kind == _STRING:
        for _ in range(data.enough(count, _LEAST_TEXT, "texts")):
            data.skip(data.number("Q"))
    else:
        data.skip(count * struct.calcsize("<" + _form(kind, name)))
    return count


def _form(kind: int, name: str) -> str:
    if kind not in _SCALARS:
        raise DamagedFile(f"{shown(name)} holds values of the unknown type {kind}")
    return _SCALARS[kind]


def _description(data: _Bytes) -> Description:
    name, axes = data.text(_LONGEST_NAME), data.number("I")
    if not 0 < axes <= _MOST_AXES:
        raise DamagedFile(f"its tensor {shown(name)} has {axes} axes")
    shape = tuple(data.number("Q") for _ in range(axes))
    return Description(name, shape, data.number("I"), data.number("Q"))


def _alignment(header: Header) -> int:
    alignment = header.values.get("general.alignment", 32)
    if type(alignment) is not int or not 0 < alignment <= _LARGEST_ALIGNMENT or alignment & (alignment - 1):
        raise DamagedFile(f"its alignment is {shown(alignment)}, which is no power of two")
    return alignment


def _placed(described: list[Description], end: int, alignment: int) -> tuple[Description, ...]:
    """Tensors with their places counted from the start of the file; those of the file count from the header's end."""
    if len({one.name for one in described}) < len(described):
        raise DamagedFile("two of its tensors have the same name")
    base = -(-end // alignment) * alignment
    return tuple(Description(one.name, one.shape, one.kind, base + one.start) for one in described)
