"""safetensors files taken apart, damaged in ways that keep them readable, and put together again."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from random import Random
from typing import Any

from .damage import bytes_of, changed, hostile, plain_dump, written

_BITS = {
    "F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16, "U16": 16,
    "I8": 8, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4, "C64": 64,
}  # fmt: skip


@dataclass
class Entry:
    """One tensor: dtype, shape and bytes."""

    dtype: str
    shape: list[int]
    data: bytes


@dataclass
class Parts:
    """What a safetensors file holds."""

    metadata: dict[str, str]
    tensors: dict[str, Entry]


def split(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and data. Raises `ValueError`."""
    if len(data) < 8:
        raise ValueError("too short")
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    if not isinstance(header, dict):
        raise ValueError("no header")
    return header, data[8 + length :]


def join(header: bytes, body: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + body


def parts_of(data: bytes) -> Parts:
    header, body = split(data)
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        start, stop = entry["data_offsets"]
        tensors[name] = Entry(entry["dtype"], list(entry["shape"]), body[start:stop])
    return Parts(metadata, tensors)


def whole(parts: Parts, extra: dict[str, Any] | None = None) -> bytes:
    """A file whose offsets are right, whatever the tensors are."""
    header: dict[str, Any] = {"__metadata__": parts.metadata}
    body = bytearray()
    for name, entry in parts.tensors.items():
        start = len(body)
        body += entry.data
        header[name] = {"dtype": entry.dtype, "shape": entry.shape, "data_offsets": [start, len(body)]}
    return join(plain_dump(header | (extra or {})), bytes(body))


def safetensors_of(random: Random, data: bytes, metadata: Callable[[Random, str], bytes] | None = None) -> bytes:
    """A safetensors file with one damage; much of it leaves the file readable, and what it says wrong."""
    try:
        parts = parts_of(data)
        choice = random.random()
        if parts.metadata and choice < 0.45:
            return _with_metadata(random, parts)
        if choice < 0.75:
            _change_tensor(random, parts)
            return whole(parts)
        return _with_header(random, data)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, struct.error):
        return bytes_of(random, data)


def _with_metadata(random: Random, parts: Parts) -> bytes:
    name = random.choice(list(parts.metadata))
    try:
        value = json.loads(parts.metadata[name])
        text = written(changed(random, value), plain_dump).decode("utf-8", "surrogatepass")
    except ValueError:
        text = bytes_of(random, parts.metadata[name].encode()).decode("utf-8", "replace")
    parts.metadata[name] = text
    if random.random() < 0.03:
        parts.metadata = {random.choice(("", "optrode", "x")): text, "other": "y" * 100}
    return whole(parts)


def _change_tensor(random: Random, parts: Parts) -> None:
    name = random.choice(list(parts.tensors))
    entry = parts.tensors[name]
    width = _BITS[entry.dtype] // 8
    choice = random.randrange(9)
    if choice == 0:
        entry.data = _special(random, entry.dtype) * (len(entry.data) // max(1, width)) if width else entry.data
        entry.data = entry.data[: prod(entry.shape) * width].ljust(prod(entry.shape) * width, b"\xff")
    elif choice == 1:
        _other_dtype(random, entry)
    elif choice == 2:
        entry.shape = random.choice(([prod(entry.shape)], [1, *entry.shape], [*entry.shape, 1], [*entry.shape[::-1]]))
    elif choice == 3:
        entry.shape, entry.data = random.choice(([0], [0, 7], [2**40, 0], [])), b""
        entry.data = b"\0" * width if not entry.shape else b""
    elif choice == 4:
        del parts.tensors[name]
    elif choice == 5:
        parts.tensors[random.choice(("", "x", name + ".y", "../" + name, "a\nb" * 200, "edit.0.vector"))] = entry
        if random.random() < 0.5:
            del parts.tensors[name]
    elif choice == 6:
        other = random.choice(list(parts.tensors.values()))
        parts.tensors[name] = Entry(other.dtype, list(other.shape), other.data)
    elif choice == 7:
        entry.data = random.randbytes(len(entry.data))
    else:
        rows = random.choice((0, 1, 2, 5))
        rest = prod(entry.shape[1:]) * width
        entry.shape = [rows, *entry.shape[1:]] if entry.shape else [rows]
        entry.data = (entry.data * (rows + 1))[: rows * rest].ljust(rows * rest, b"\0")


def _other_dtype(random: Random, entry: Entry) -> None:
    """The same bytes, or as many zeros, called another dtype."""
    entry.dtype = random.choice(list(_BITS))
    count = prod(entry.shape)
    need = -(-count * _BITS[entry.dtype] // 8)
    entry.data = (entry.data * 9)[:need].ljust(need, b"\0")


def _special(random: Random, dtype: str) -> bytes:
    pool = {
        "F32": [struct.pack("<f", value) for value in (float("nan"), float("inf"), -float("inf"), 3e38, 1e-45, -0.0)],
        "F64": [struct.pack("<d", value) for value in (float("nan"), float("inf"), 1e308, 5e-324)],
        "F16": [b"\x00\x7e", b"\x00\x7c", b"\xff\x7b"],
        "BF16": [b"\xc0\x7f", b"\x80\x7f"],
        "I64": [struct.pack("<q", value) for value in (-1, 2**63 - 1, -(2**63), 10**12, 0)],
    }
    return random.choice(pool.get(dtype, [b"\xff", b"\x00", b"\x02"]))


def _with_header(random: Random, data: bytes) -> bytes:
    header, body = split(data)
    choice = random.randrange(6)
    if choice == 0:
        lie = random.choice((0, 1, 2, len(data), len(data) + 1, 10**8, 10**8 + 1, 2**31, 2**63, 2**64 - 1))
        return join(plain_dump(header), body, lie)
    if choice == 1:
        return join(bytes_of(random, plain_dump(header)), body)
    if choice == 2:
        name = random.choice([name for name in header if name != "__metadata__"])
        header[name]["data_offsets"] = [random.choice((0, -1, 1, 2**63, 2**64 - 1, 8)) for _ in range(2)]
    elif choice == 3:
        name = random.choice([name for name in header if name != "__metadata__"])
        header[name]["shape"] = random.choice(([2**62, 4], [2**32, 2**32], [-1], [10**9], [0] * 100, [1] * 70))
    elif choice == 4:
        header["__metadata__"] = hostile(random)
    else:
        header = changed(random, header)
    return join(written(header, plain_dump), body)
