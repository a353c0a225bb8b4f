"""Zip archives of arrays, and pictures: bombs, lies about shapes, pickles."""

from __future__ import annotations

import functools
import io
import pickle
import struct
import zipfile
import zlib
from random import Random

from .damage import bytes_of, json_of


class Trap:
    """Whoever unpickles this runs a command that the guard sees."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.system, ("true",)


@functools.cache
def trap(protocol: int = 2) -> bytes:
    """A pickle that runs code when it is read."""
    return pickle.dumps({"vector": Trap()}, protocol=protocol)


@functools.cache
def torch_trap() -> bytes:
    """What `torch.save` writes, with a pickle inside that runs code when it is read."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", trap())
        archive.writestr("archive/version", "3\n")
    return out.getvalue()


def npz_of(random: Random, data: bytes) -> bytes:
    """An archive of arrays with one of its members damaged, or the archive itself."""
    if random.random() < 0.35:
        return bytes_of(random, data)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError):
        return bytes_of(random, data)
    return _zipped(random, _members(random, members))


def _members(random: Random, members: dict[str, bytes]) -> dict[str, bytes]:
    name = random.choice(list(members))
    choice = random.randrange(8)
    if choice == 0:
        del members[name]
    elif choice == 1:
        members[random.choice(("../../x.npy", "/tmp/x.npy", "x.npy", "values", "", "about.npy.npy"))] = members[name]
    elif choice == 2:
        members[name] = _npy(random.choice(_HEADERS), b"\0" * random.choice((0, 8, 4096)))
    elif choice == 3:
        objects = _npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", trap())
        members[name] = random.choice((trap(), b"", b"\x93NUMPY", objects))
    elif choice == 4:
        members[name] = bytes_of(random, members[name])
    elif choice == 5:
        members["values.npy"] = _bomb()
    elif "about.npy" in members:
        about = json_of(random, members["about.npy"][128:])
        members["about.npy"] = _npy(f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({len(about)},), }}", about)
    return members


_SHAPES = (
    ("False", "(2, 2)"), ("True", "(0,)"), ("1", "(2**40,)"), ("False", "(1000000000000,)"), ("False", "(-1,)"),
)  # fmt: skip
_HEADERS = (
    *(
        f"{{'descr': {kind}, 'fortran_order': {order}, 'shape': {shape}, }}"
        for kind in ("'<f8'", "'|O'", "'<U9'", "'<M8[s]'", "[('a', '<f8')]", "'<f16'", "'|V0'", "'<c16'")
        for order, shape in _SHAPES
    ),
    "{" * 3000, "__import__('os').system('x')", "{'descr': '<f8'}", "(" * 200 + ")" * 200,
)  # fmt: skip


def _npy(header: str, data: bytes) -> bytes:
    text = header.encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", min(len(text), 65535)) + text + data


@functools.cache
def _bomb() -> bytes:
    return _npy("{'descr': '<f8', 'fortran_order': False, 'shape': (500000000,), }", b"\0" * 4096)


def _zipped(random: Random, members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    packed = random.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA))
    with zipfile.ZipFile(out, "w", packed) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
            if random.random() < 0.03:
                archive.writestr(name, data)
    whole = out.getvalue()
    # The size that the directory at the end says.
    if random.random() < 0.2:
        place = whole.find(b"PK\x01\x02")
        lie = struct.pack("<I", random.choice((0, 2**31, 2**32 - 2)))
        whole = whole[: place + 24] + lie + whole[place + 28 :]
    return whole


@functools.cache
def zip_bomb() -> bytes:
    """An archive of one array of two gigabytes, in two megabytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        head = _npy("{'descr': '<f8', 'fortran_order': False, 'shape': (250000000,), }", b"")
        with archive.open("values.npy", "w", force_zip64=True) as member:
            member.write(head)
            for _ in range(32):
                member.write(bytes(2_000_000_000 // 32))
    return out.getvalue()


def picture_of(random: Random, data: bytes) -> bytes:
    """A picture damaged, often in the sizes that a PNG says; its checksums fit again."""
    if random.random() < 0.5 or not data.startswith(b"\x89PNG"):
        return bytes_of(random, data)
    sizes = (0, 1, 2**15, 2**16, 2**20, 2**31 - 1, 2**32 - 1)
    head = struct.pack(">II", random.choice(sizes), random.choice(sizes)) + bytes(
        [random.choice((1, 8, 16, 3)), random.choice((0, 2, 3, 4, 6, 9)), 0, 0, random.choice((0, 1))]
    )
    chunk = b"IHDR" + head
    return data[:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]
