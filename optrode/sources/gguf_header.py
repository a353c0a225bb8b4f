"""The header of a GGUF file, checked before any library believes it.

Counts, lengths, shapes and offsets of a file may be lies, by damage or on purpose. The readers that convert a file loop
over its counts and allocate what its shapes say, so every one of them is compared with the bytes that there are first.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from optrode.errors import BadFile
from optrode.messages import plain

# Type numbers of the format, and how `struct` writes them.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_VERSIONS = (2, 3)
# A vocabulary of 256,000 tokens with scores, types and merges has some 1.5 million; each takes 300 bytes when read.
_MOST_ENTRIES = 6_000_000
_MOST_AXES = 4
# Sizes from which networks are built; none can be larger than all weights together.
_SIZES = (
    "block_count", "embedding_length", "feed_forward_length", "expert_feed_forward_length", "attention.head_count",
    "attention.head_count_kv", "attention.key_length", "attention.value_length", "rope.dimension_count", "expert_count",
    "expert_used_count", "vocab_size", "ssm.conv_kernel", "ssm.inner_size", "ssm.state_size", "ssm.time_step_rank",
)  # fmt: skip


@dataclass
class Header:
    """What a file says of itself: scalars and texts by name, the lengths of its arrays, and its tensors' shapes."""

    values: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, int] = field(default_factory=dict)
    tensors: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def elements(self) -> int:
        """Numbers in all tensors."""
        return sum(map(prod, self.tensors.values()))


class _Damaged(ValueError):
    """What is wrong with a header."""


class _Bytes:
    """The bytes of a file, read one value after the other and never past their end."""

    def __init__(self, data: Any):
        self.data, self.at, self.order = data, 0, "<"

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def take(self, form: str) -> Any:
        size = struct.calcsize(form)
        if size > self.left:
            raise _Damaged("its header is cut short")
        (value,) = struct.unpack_from(self.order + form, self.data, self.at)
        self.at += size
        return value

    def skip(self, size: int) -> None:
        if size > self.left:
            raise _Damaged("its header says that it holds more than it has bytes")
        self.at += size

    def text(self) -> str:
        length = self.take("Q")
        self.skip(length)
        try:
            return bytes(self.data[self.at - length : self.at]).decode()
        except UnicodeDecodeError as problem:
            raise _Damaged("a text in its header is no UTF-8") from problem


def read_header(path: Path) -> Header:
    """The header of a GGUF file. Raises `BadFile` where it is damaged or says more than the file holds.

    Costs a pass over the header alone: some tenths of a second for a large vocabulary.
    """
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _header(_Bytes(data))
    except (_Damaged, OSError, OverflowError, ValueError) as problem:
        cause = problem if isinstance(problem, _Damaged) else "it cannot be mapped"
        raise BadFile(f"{path.name} is damaged or no GGUF file: {cause}") from problem


def _header(data: _Bytes) -> Header:
    data.skip(4)
    version = data.take("I")
    if version % 2**16 == 0:
        # Written on a machine of the other byte order.
        data.order, data.at = ">", 4
        version = data.take("I")
    if version not in _VERSIONS:
        raise _Damaged(f"its version is {version}, and {' and '.join(map(str, _VERSIONS))} are known")
    tensors, fields = data.take("Q"), data.take("Q")
    header, entries = Header(), 0
    for _ in range(fields):
        name = data.text()
        if name in header.values or name in header.arrays:
            raise _Damaged(f"it has '{plain(name)}' twice")
        entries = _field(data, header, name, entries)
    places = [_tensor(data, header) for _ in range(tensors)]
    _check_places(data, header, places)
    _check_sizes(header)
    return header


def _field(data: _Bytes, header: Header, name: str, entries: int) -> int:
    """Read one field; gives how many entries of arrays there were so far."""
    kind = data.take("I")
    if kind == _STRING:
        header.values[name] = data.text()
    elif kind in _SCALARS:
        header.values[name] = data.take(_SCALARS[kind])
    elif kind == _ARRAY:
        of, count = data.take("I"), data.take("Q")
        entries += count
        if entries > _MOST_ENTRIES:
            raise _Damaged(f"its arrays have over {_MOST_ENTRIES:,} entries")
        if of == _STRING:
            for _ in range(count):
                data.skip(data.take("Q"))
        elif of in _SCALARS:
            data.skip(count * struct.calcsize(_SCALARS[of]))
        else:
            raise _Damaged(f"'{plain(name)}' is an array of what no array holds")
        header.arrays[name] = count
    else:
        raise _Damaged(f"'{plain(name)}' is of no known type")
    return entries


def _tensor(data: _Bytes, header: Header) -> tuple[int, int]:
    """Read what is said of one tensor; gives where it begins and how many bytes it has."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    name, axes = data.text(), data.take("I")
    if name in header.tensors or not 0 < axes <= _MOST_AXES:
        raise _Damaged(f"its tensor '{plain(name)}' is there twice, or has {axes} axes")
    shape = tuple(data.take("Q") for _ in range(axes))
    kind, start = data.take("I"), data.take("Q")
    try:
        block, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
    except (KeyError, ValueError) as problem:
        raise _Damaged(f"its tensor '{plain(name)}' is of the type {kind}, which nobody knows") from problem
    if 0 in shape or shape[0] % block:
        raise _Damaged(f"its tensor '{plain(name)}' has a shape that its type cannot have")
    header.tensors[name] = shape
    return start, prod(shape) // block * size


def _check_places(data: _Bytes, header: Header, places: list[tuple[int, int]]) -> None:
    alignment = header.values.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= 2**20 or alignment & (alignment - 1):
        raise _Damaged("its alignment is no power of two")
    begins = -(-data.at // alignment) * alignment
    if any(begins + start + size > len(data.data) for start, size in places):
        raise _Damaged("a tensor is longer than the file")


def _check_sizes(header: Header) -> None:
    """Raises for a network that would be larger than what the file holds of it."""
    architecture = header.values.get("general.architecture")
    if not isinstance(architecture, str):
        raise _Damaged("it names no architecture")
    for size in _SIZES:
        value = header.values.get(f"{architecture}.{size}", 1)
        most = len(header.tensors) if size == "block_count" else header.elements
        if isinstance(value, str) or not 0 <= value <= most:
            raise _Damaged(f"its {size} is more than its tensors can be")
