"""GGUF files taken apart, damaged field by field, and put together again."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from random import Random
from typing import Any

from .damage import TEXTS, bytes_of

# Type numbers of the format, and how `struct` writes them.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
_COUNTS = (0, 1, 2, 255, 2**16, 2**31 - 1, 2**32 - 1, 2**40, 2**62, 2**63, 2**64 - 1)


@dataclass
class Value:
    """One value; the counts are lies where they are not None."""

    kind: int
    value: Any
    of: int = 0
    count: int | None = None


@dataclass
class Tensor:
    name: bytes
    shape: list[int]
    kind: int
    offset: int
    axes: int | None = None


@dataclass
class File:
    version: int
    fields: list[tuple[bytes, Value]]
    tensors: list[Tensor]
    data: bytes
    counts: dict[str, int] = field(default_factory=dict)


class _Reader:
    def __init__(self, data: bytes):
        self.data, self.at = data, 0

    def take(self, form: str) -> Any:
        (value,) = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize("<" + form)
        return value

    def text(self) -> bytes:
        length = self.take("Q")
        self.at += length
        return self.data[self.at - length : self.at]

    def value(self, kind: int) -> Value:
        if kind == STRING:
            return Value(kind, self.text())
        if kind == ARRAY:
            of, count = self.take("I"), self.take("Q")
            return Value(kind, [self.value(of) for _ in range(count)], of)
        return Value(kind, self.take(_SCALARS[kind]))


def parse(data: bytes) -> File:
    """A file that is whole. Raises `struct.error`, `KeyError` for others."""
    reader = _Reader(data)
    reader.at = 4
    version, tensors, fields = reader.take("I"), reader.take("Q"), reader.take("Q")
    known = []
    for _ in range(fields):
        name = reader.text()
        known.append((name, reader.value(reader.take("I"))))
    infos = []
    for _ in range(tensors):
        name, axes = reader.text(), reader.take("I")
        shape = [reader.take("Q") for _ in range(axes)]
        infos.append(Tensor(name, shape, reader.take("I"), reader.take("Q")))
    return File(version, known, infos, data[-(-reader.at // 32) * 32 :])


def build(file: File) -> bytes:
    out = bytearray(b"GGUF")
    tensors, fields = len(file.tensors), len(file.fields)
    out += struct.pack("<IQQ", file.version, file.counts.get("tensors", tensors), file.counts.get("fields", fields))
    for name, value in file.fields:
        out += _text(name, file.counts.get("name") if name == b"general.name" else None)
        out += struct.pack("<I", value.kind) + _bytes(value)
    for tensor in file.tensors:
        out += _text(tensor.name) + struct.pack("<I", len(tensor.shape) if tensor.axes is None else tensor.axes)
        out += b"".join(struct.pack("<Q", size % 2**64) for size in tensor.shape)
        out += struct.pack("<IQ", tensor.kind, tensor.offset % 2**64)
    out += b"\0" * (-len(out) % 32)
    return bytes(out) + file.data


def _text(value: bytes, count: int | None = None) -> bytes:
    return struct.pack("<Q", len(value) if count is None else count) + value


def _bytes(value: Value) -> bytes:
    if value.kind == STRING:
        return _text(value.value, value.count)
    if value.kind == ARRAY:
        count = len(value.value) if value.count is None else value.count
        return struct.pack("<IQ", value.of, count) + b"".join(_bytes(item) for item in value.value)
    form = _SCALARS.get(value.kind, "I")
    return struct.pack("<" + form, _fitting(form, value.value))


def _fitting(form: str, value: Any) -> Any:
    if form == "?":
        return bool(value)
    if form in "fd":
        return float(value) if abs(value) < 1e38 else float("inf")
    bits = 8 * struct.calcsize("<" + form)
    value = int(value) if value == value and abs(value) != float("inf") else 0
    low, high = (0, 2**bits - 1) if form.isupper() else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return max(low, min(high, value))


def gguf_of(random: Random, data: bytes) -> bytes:
    """A GGUF file with one to three damages to its fields, tensors or counts."""
    try:
        file = parse(data)
        for _ in range(random.choice((1, 1, 1, 2, 3))):
            random.choice((_field, _field, _field, _tensor, _tensor, _counts, _order))(random, file)
        return build(file)
    except (struct.error, KeyError, IndexError, ValueError, TypeError, OverflowError):
        return bytes_of(random, data)


def _field(random: Random, file: File) -> None:
    place = random.randrange(len(file.fields))
    name, value = file.fields[place]
    choice = random.randrange(8)
    if choice == 0:
        del file.fields[place]
    elif choice == 1:
        file.fields.append((name, value))
    elif choice == 2:
        value.count = random.choice(_COUNTS)
    elif choice == 3:
        value.kind = random.choice((*_SCALARS, STRING, ARRAY, 13, 2**31))
        value.value = [Value(4, 1)] if value.kind == ARRAY else b"x" if value.kind == STRING else 3
        value.of = 4
    elif choice == 4 and value.kind == ARRAY:
        _array(random, value)
    elif choice == 5:
        names = (b"", b"\xff", b"general.architecture", b"general.alignment", name[:-1], b"llama." + name)
        renamed = random.choice(names)
        file.fields[place] = (renamed, value)
    elif value.kind == STRING:
        texts = [text.encode("utf-8", "surrogatepass") for text in TEXTS]
        kinds = (b"gpt2", b"llama", b"qwen2", b"t5", b"gemma3", b"bloom", b"phi3")
        value.value = random.choice([*texts, *kinds, b"\xff\xfe"])
    elif value.kind in _SCALARS:
        large = (10**6, 2**31 - 1, 2**32 - 1, 2**40, float("nan"), 1e30)
        value.value = random.choice((0, -1, 1, 2, 3, 31, 33, 64, *large))


def _array(random: Random, value: Value) -> None:
    choice = random.randrange(5)
    if choice == 0:
        value.value = []
    elif choice == 1:
        value.of = random.choice((*_SCALARS, STRING, ARRAY, 99))
    elif choice == 2:
        nested = Value(ARRAY, [], 4)
        for _ in range(random.choice((1, 3, 5000))):
            nested = Value(ARRAY, [nested], ARRAY)
        value.value, value.of = [nested], ARRAY
    elif choice == 3 and value.value:
        value.value[random.randrange(len(value.value))] = Value(STRING, random.choice((b"", b"\xff", b"x" * 9000)))
    else:
        value.value = value.value * 2 if len(value.value) < 10_000 else value.value[:1]


def _tensor(random: Random, file: File) -> None:
    place = random.randrange(len(file.tensors))
    tensor = file.tensors[place]
    choice = random.randrange(8)
    if choice == 0:
        shapes = ([2**62, 4], [2**32, 2**32], [0], [2**63], [1] * 20, [10**9], [], tensor.shape[::-1])
        tensor.shape = random.choice(shapes)
    elif choice == 1:
        tensor.axes = random.choice((0, 1, 3, 5, 255, 2**31, 2**32 - 1))
    elif choice == 2:
        tensor.kind = random.choice((*range(0, 40), 99, 2**31))
    elif choice == 3:
        tensor.offset = random.choice((1, 31, 33, 64, len(file.data), len(file.data) - 4, 2**40, 2**63, 2**64 - 1))
    elif choice == 4:
        del file.tensors[place]
    elif choice == 5:
        file.tensors.append(tensor)
    elif choice == 6:
        known = (b"blk.0.attn_q.weight", b"blk.99.attn_q.weight", b"output.weight")
        tensor.name = random.choice((b"", b"x", b"\xff", *known))
    else:
        tensor.shape = [max(0, size + random.choice((-1, 1, 8))) for size in tensor.shape]


def _counts(random: Random, file: File) -> None:
    name = random.choice(("tensors", "fields", "name", "version", "data"))
    if name == "version":
        file.version = random.choice((0, 1, 2, 4, 2**16, 2**24 * 3, 2**32 - 1))
    elif name == "data":
        file.data = bytes_of(random, file.data)
    else:
        file.counts[name] = random.choice((*_COUNTS, len(file.tensors) - 1, len(file.fields) + 1))


def _order(random: Random, file: File) -> None:
    random.shuffle(random.choice((file.fields, file.tensors)))
