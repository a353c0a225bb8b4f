"""The header and the tensors of a GGUF file that nobody vouches for: every length is checked against the file's size.

What is read is what a control vector needs: plain values, and tensors of floating-point numbers. The file is mapped,
not read, so that a model of many gigabytes is told apart from a control vector without loading it.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import BadFile, MissingFile, NotSupported
from ...messages import one_line, shown

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
# Types of values in the header, by number, as `struct` reads them.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
# Types of tensors that are plain numbers.
_NUMBERS: dict[int, np.dtype[Any]] = {0: np.dtype("<f4"), 1: np.dtype("<f2"), 28: np.dtype("<f8")}
# The least that one entry of the header, or one tensor's description, takes up.
_LEAST_VALUE, _LEAST_TENSOR = 13, 24
_LONGEST_NAME, _MOST_AXES = 65535, 4


@dataclass(frozen=True)
class Description:
    """A tensor before it is read. `shape`: as in the file, the fastest axis first. `start`: byte of the file."""

    name: str
    shape: tuple[int, ...]
    kind: int
    start: int


@dataclass(frozen=True)
class Header:
    """`values` by key: numbers and texts; None stands for an array, which is skipped."""

    values: dict[str, Any]
    tensors: tuple[Description, ...]


def read_gguf(path: Path, wanted: Callable[[Header], list[Description]]) -> tuple[Header, dict[str, Tensor]]:
    """The header of a GGUF file, and those of its tensors that `wanted` picks from it, float32 on the CPU.

    Raises `MissingFile`, `BadFile` where the file is cut or its numbers do not fit together, `NotSupported` for tensors
    that are quantised.
    """
    if not path.is_file():
        raise MissingFile(f"there is no file '{path}'")
    try:
        with open(path, "rb") as file:
            if file.read(4) != MAGIC:
                raise BadFile(f"'{path.name}' is no GGUF file: its first four bytes are not GGUF")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                header = _header(_Reader(data))
                return header, _tensors(data, wanted(header))
    except (struct.error, ValueError, OverflowError, OSError) as problem:
        raise BadFile(f"'{path.name}' is damaged: {one_line(problem)}") from problem


class _Reader:
    """Takes values one after the other; `ValueError` where the file ends too early."""

    def __init__(self, data: mmap.mmap):
        self.data, self.at = data, 4

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def skip(self, count: int) -> int:
        if not 0 <= count <= self.left:
            raise ValueError(f"it ends {count - self.left} bytes too early")
        self.at += count
        return self.at - count

    def number(self, form: str) -> Any:
        start = self.skip(struct.calcsize("<" + form))
        return struct.unpack_from("<" + form, self.data, start)[0]

    def text(self, longest: int | None = None) -> str:
        length = self.number("Q")
        if longest is not None and length > longest:
            raise ValueError(f"a name of {length} bytes")
        start = self.skip(length)
        return self.data[start : self.at].decode("utf-8")

    def count(self, least: int) -> int:
        """A number of things that take at least so many bytes each."""
        found: int = self.number("Q")
        if found > self.left // least:
            raise ValueError(f"it says that {found} entries follow, for which it is too short")
        return found


def _header(reader: _Reader) -> Header:
    version = reader.number("I")
    if version not in _VERSIONS:
        raise ValueError(f"GGUF version {version}, where 2 and 3 can be read")
    described = reader.number("Q")
    values: dict[str, Any] = {}
    for _ in range(reader.count(_LEAST_VALUE)):
        key = reader.text(_LONGEST_NAME)
        values[key] = _value(reader, reader.number("I"))
    if described > reader.left // _LEAST_TENSOR:
        raise ValueError(f"it says that {described} tensors follow, for which it is too short")
    found = [_description(reader) for _ in range(described)]
    alignment = values.get("general.alignment", 32)
    if type(alignment) is not int or not 1 <= alignment <= 2**16:
        raise ValueError(f"an alignment of {shown(alignment)}")
    base = -(-reader.at // alignment) * alignment
    return Header(values, tuple(Description(one.name, one.shape, one.kind, base + one.start) for one in found))


def _value(reader: _Reader, kind: int) -> Any:
    if kind == _STRING:
        return reader.text()
    if kind != _ARRAY:
        return reader.number(_form(kind))
    inner, count = reader.number("I"), reader.number("Q")
    if inner == _STRING:
        if count > reader.left // 8:
            raise ValueError(f"an array of {count} texts, for which it is too short")
        for _ in range(count):
            reader.skip(reader.number("Q"))
    else:
        reader.skip(count * struct.calcsize("<" + _form(inner)))
    return None


def _form(kind: int) -> str:
    if kind not in _SCALARS:
        raise ValueError(f"a value of the unknown type {kind}")
    return _SCALARS[kind]


def _description(reader: _Reader) -> Description:
    name, axes = reader.text(_LONGEST_NAME), reader.number("I")
    if axes > _MOST_AXES:
        raise ValueError(f"a tensor of {axes} axes")
    shape = tuple(reader.number("Q") for _ in range(axes))
    return Description(name, shape, reader.number("I"), reader.number("Q"))


def _tensors(data: mmap.mmap, chosen: list[Description]) -> dict[str, Tensor]:
    if len({one.name for one in chosen}) < len(chosen):
        raise ValueError("two tensors of the same name")
    kinds = [_numbers(one) for one in chosen]
    sizes = [math.prod(one.shape) * kind.itemsize for one, kind in zip(chosen, kinds, strict=True)]
    # Many tensors may lie in the same bytes: all together are no larger than the file.
    if sum(sizes) > len(data):
        raise ValueError("its tensors are larger than the file")
    found = {}
    for one, kind, size in zip(chosen, kinds, sizes, strict=True):
        if one.start + size > len(data):
            raise ValueError(f"the tensor {shown(one.name)} ends {one.start + size - len(data)} bytes after the file")
        array = np.frombuffer(data[one.start : one.start + size], kind).astype(np.float32)
        found[one.name] = torch.from_numpy(array.reshape(one.shape[::-1]))
    return found


def _numbers(tensor: Description) -> np.dtype[Any]:
    if tensor.kind not in _NUMBERS:
        raise NotSupported(f"the tensor {shown(tensor.name)} is quantised or holds no floating-point numbers")
    return _NUMBERS[tensor.kind]
