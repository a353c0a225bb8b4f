"""Damage to bytes, and to values anywhere in JSON."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from random import Random
from typing import Any

Dump = Callable[[Any], bytes]

NUMBERS: tuple[Any, ...] = (
    0, -1, 1, 2, 3, 7, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1,
    2**64, -(2**31), -(2**63), 10**9, 10**12, 10**18, 10**400, 0.0, -0.0, 0.5, -1.5, 1e-320, 1e308, float("nan"),
    float("inf"), float("-inf"),
)  # fmt: skip
TEXTS = (
    "", " ", "x", "0", "null", "../../outside", "/etc/passwd", "../../outside/secret.txt", "C:\\x", "a\nb\r\nc", "\x00",
    "\x1b[2J\x1b]0;x\x07", "\ud800", "\u202e", "é" * 50, "A" * 3000, "{}", "__class__", "__import__('os').system('x')",
    "os.system", "torch.nn.Module", "onnx", "float8_e4m3fn", "complex64", "object", "%s%n", "${jndi:x}",
    "{0.__class__}",
    "file:///etc/passwd", "http://127.0.0.1:9/x", "-o/tmp/x", "--out=/tmp/x", "layers.{" + "a," * 30 + "b}.out",
    "layers.*.out", "(" * 40 + "a*" * 40 + ")", "first:999999999", "9" * 5000, "1e400",
)  # fmt: skip
EMPTIES: tuple[Any, ...] = (None, True, False, [], {}, [[]], [{}], {"": {}}, [None], [1, "a", None], {"a": [1]})
# Stand for text that `json.dumps` would not write.
_DEEP_LIST, _DEEP_TABLE, _TWICE = "@@deep list@@", "@@deep table@@", "@@twice@@"


# Bytes --------------------------------------------------------------------------------------------------------------


def bytes_of(random: Random, data: bytes) -> bytes:
    """The bytes with one damage."""
    return random.choice(_BYTE_DAMAGE)(random, data)


def _flip(random: Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 4, 16))):
        if changed:
            changed[_place(random, len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _place(random: Random, length: int) -> int:
    """A place in a file; headers are at one of the ends."""
    near = min(length, random.choice((16, 64, 512, length)))
    place = random.randrange(near)
    return length - 1 - place if random.random() < 0.3 else place


def _cut(random: Random, data: bytes) -> bytes:
    return data[: random.choice((0, 1, 4, 7, 8, 9, len(data) // 2, len(data) - 1, random.randrange(len(data) + 1)))]


def _lengthen(random: Random, data: bytes) -> bytes:
    return data + random.choice((b"\0", b"\0" * 4096, data[:64], random.randbytes(37), b"\n", b"}" * 9))


def _insert(random: Random, data: bytes) -> bytes:
    place = random.randrange(len(data) + 1)
    some = random.randbytes(random.randrange(1, 9))
    part = random.choice((b"\0" * 8, b"\xff\xfe", b"\xed\xa0\x80", b"\n", b'"', some))
    return data[:place] + part + data[place:]


def _remove(random: Random, data: bytes) -> bytes:
    start = random.randrange(len(data) + 1)
    return data[:start] + data[start + random.choice((1, 2, 4, 8, 100)) :]


def _number(random: Random, data: bytes) -> bytes:
    form = random.choice(("<B", "<H", "<I", "<Q", "<i", "<q", ">I", "<f", "<d"))
    width = struct.calcsize(form)
    if len(data) < width:
        return data
    value = random.choice((0, 1, -1, 127, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**63, 2**64 - 1))
    low, high = (0, 2 ** (8 * width) - 1) if form[1].isupper() else (-(2 ** (8 * width - 1)), 2 ** (8 * width - 1) - 1)
    packed = struct.pack(form, float(value) if form[1] in "fd" else max(low, min(high, value)))
    place = min(_place(random, len(data)), len(data) - width)
    place -= place % random.choice((1, 4, 8))
    return data[:place] + packed + data[place + width :]


def _blank(random: Random, data: bytes) -> bytes:
    start = random.randrange(len(data) + 1)
    length = min(len(data) - start, random.choice((1, 8, 64, 1024)))
    return data[:start] + random.choice((b"\0", b"\xff", b" ", b"9"))[:1] * length + data[start + length :]


def _repeat(random: Random, data: bytes) -> bytes:
    start = random.randrange(len(data) + 1)
    part = data[start : start + random.choice((1, 8, 64, 512))]
    return data[:start] + part * random.choice((2, 3, 50)) + data[start:]


def _shuffle(random: Random, data: bytes) -> bytes:
    a, b = sorted(random.randrange(len(data) + 1) for _ in range(2))
    return data[b:] + data[a:b] + data[:a]


_OFTEN = (_flip, _flip, _flip, _cut, _cut, _number, _number)
_BYTE_DAMAGE = (*_OFTEN, _lengthen, _insert, _remove, _blank, _repeat, _shuffle)


# JSON ---------------------------------------------------------------------------------------------------------------


def plain_dump(value: Any) -> bytes:
    return json.dumps(value).encode()


def json_of(random: Random, data: bytes, dump: Dump = plain_dump) -> bytes:
    """JSON with one to three of its values damaged; damage to the text where it cannot be read."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return bytes_of(random, data)
    return written(changed(random, value), dump)


def json_lines_of(random: Random, data: bytes) -> bytes:
    """One line of JSON lines damaged, or the lines among themselves."""
    lines = data.split(b"\n")
    place = random.randrange(len(lines))
    choice = random.randrange(8)
    if choice == 0:
        return b"\n".join(lines[:place] + lines[place + 1 :])
    if choice == 1:
        return b"\n".join(lines[:place] + [lines[place]] * 40 + lines[place:])
    if choice == 2:
        return b"\n".join(line[: random.randrange(len(line) + 1)] if random.random() < 0.2 else line for line in lines)
    lines[place] = json_of(random, lines[place])
    return b"\n".join(lines)


def changed(random: Random, value: Any) -> Any:
    """The value with one to three of its parts damaged."""
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        value = _changed_once(random, value)
    return value


def _changed_once(random: Random, value: Any) -> Any:
    places = _places(value)
    parent, key = random.choice(places)
    if parent is None:
        return hostile(random) if random.random() < 0.2 else value
    choice = random.random()
    if choice < 0.5:
        parent[key] = hostile(random, parent[key])
    elif choice < 0.6:
        del parent[key]
    elif choice < 0.7:
        other, place = random.choice(places)
        # A copy: JSON has no loops.
        parent[key] = json.loads(json.dumps(value if other is None else other[place]))
    elif choice < 0.8 and isinstance(parent, list):
        parent[key:key] = [parent[key]] * random.choice((1, 2, 300))
    elif choice < 0.9 and isinstance(parent, dict):
        name = random.choice((*TEXTS, *list(parent)))
        parent[_TWICE + key if random.random() < 0.3 else name] = random.choice((parent[key], hostile(random)))
    elif isinstance(parent[key], str) and parent[key]:
        text = parent[key]
        place = random.randrange(len(text))
        parent[key] = text[:place] + random.choice(("", "\x00", "9", ".", "*", "\n", "é", "-")) + text[place + 1 :]
    elif isinstance(parent[key], int | float) and not isinstance(parent[key], bool):
        parent[key] = parent[key] + random.choice((-1, 1, 0.5, 10**6)) if abs(parent[key]) < 2**70 else 0
    else:
        parent[key] = hostile(random)
    return value


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every part of a value as its parent and key; the whole value comes first, without a parent."""
    found: list[tuple[Any, Any]] = [(None, None)]
    waiting = [value]
    while waiting and len(found) < 5000:
        parent = waiting.pop()
        items = parent.items() if isinstance(parent, dict) else enumerate(parent) if isinstance(parent, list) else ()
        for key, part in items:
            found.append((parent, key))
            if isinstance(part, dict | list):
                waiting.append(part)
    return found


def hostile(random: Random, instead_of: Any = None) -> Any:
    """A value that a careless reader falls over; often one of the kind that should be there."""
    same = random.random() < 0.5
    if same and isinstance(instead_of, bool):
        return random.choice((0, 1, "true", None))
    if same and isinstance(instead_of, int | float):
        return random.choice(NUMBERS)
    if same and isinstance(instead_of, str):
        return random.choice(TEXTS)
    if same and isinstance(instead_of, list):
        return [hostile(random) for _ in range(random.choice((0, 1, 2, 5)))]
    if same and isinstance(instead_of, dict):
        return {str(hostile(random)): hostile(random) for _ in range(random.choice((0, 1, 2)))}
    pool = random.choice((NUMBERS, TEXTS, EMPTIES, (_DEEP_LIST, _DEEP_TABLE)))
    value = random.choice(pool)
    return json.loads(json.dumps(value)) if isinstance(value, list | dict) else value


def written(value: Any, dump: Dump) -> bytes:
    """JSON of a value, in which some marks stand for what no value can be."""
    text = dump(value)
    if b"@@" in text:
        text = text.replace(f'"{_DEEP_LIST}"'.encode(), b"[" * 100_000 + b"]" * 100_000)
        text = text.replace(f'"{_DEEP_TABLE}"'.encode(), b'{"a":' * 20_000 + b"1" + b"}" * 20_000)
        text = text.replace(f'"{_TWICE}'.encode(), b'"')
    return text


# Tables of text ------------------------------------------------------------------------------------------------------


def csv_of(random: Random, data: bytes) -> bytes:
    """CSV with a cell, a row, a column or its header damaged."""
    lines = data.split(b"\n")
    place = random.choice((0, random.randrange(len(lines))))
    cells = lines[place].split(b",")
    which = random.randrange(len(cells))
    signs = (b'"', b'"' * 3, b"", b",", b"\0", b"=1+1")
    odd = (*signs, b"\xff\xfe", b"x" * 200_000, b"\xed\xa0\x80", b"a\rb", b"\xef\xbb\xbf")
    choice = random.randrange(6)
    if choice == 0:
        del cells[which]
    elif choice == 1:
        cells[which:which] = [random.choice(odd)]
    elif choice == 2:
        return b"\n".join(lines[: random.randrange(len(lines) + 1)])
    elif choice == 3:
        lines[place:place] = [lines[place]] * random.choice((1, 2, 500))
        return b"\n".join(lines)
    else:
        cells[which] = random.choice((*odd, cells[which] + random.choice(odd)))
    lines[place] = b",".join(cells)
    return b"\n".join(lines)
