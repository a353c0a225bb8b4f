"""The reader of GGUF files: against the package gguf, and against files that lie."""

from __future__ import annotations

import struct
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFWriter

from optrode.edits.formats.gguf_file import read_gguf
from optrode.errors import BadFile, MissingFile, NotSupported, OptrodeError
from optrode.gguf_format import Header


def everything(header: Header) -> list[Any]:
    return list(header.tensors)


def write(path: Path, tensors: dict[str, np.ndarray], **values: Any) -> Path:
    writer = GGUFWriter(path, "controlvector")
    writer.add_array("texts", ["a", "bc", ""])
    writer.add_array("numbers", [1, 2, 3])
    writer.add_bool("yes", True)
    writer.add_float64("real", 0.1)
    for name, value in values.items():
        writer.add_uint32(name, value)
    for name, array in tensors.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("alignment", [32, 64])
def test_it_reads_what_the_package_writes(tmp_path: Path, alignment: int) -> None:
    random = np.random.default_rng(0)
    tensors = {
        "one": random.normal(size=7).astype(np.float32),
        "half": random.normal(size=5).astype(np.float16),
        "double": random.normal(size=(3, 4)),
    }
    path = tmp_path / "file.gguf"
    writer_alignment = {} if alignment == 32 else {"general.alignment": alignment}
    if alignment == 32:
        write(path, tensors)
    else:
        writer = GGUFWriter(path, "controlvector")
        writer.add_custom_alignment(alignment)
        for name, array in tensors.items():
            writer.add_tensor(name, array)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    header, found = read_gguf(path, everything)
    assert header.values["general.architecture"] == "controlvector"
    assert header.values.items() >= writer_alignment.items()
    if alignment == 32:
        assert header.values["yes"] is True and header.values["real"] == 0.1 and header.values["texts"] is None
    for name, array in tensors.items():
        assert found[name].dtype == torch.float32
        np.testing.assert_array_equal(found[name].numpy(), array.astype(np.float32))


def test_only_what_is_wanted_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "file.gguf", {"a": np.ones(3, np.float32), "b": np.ones(4, np.int8)})
    assert list(read_gguf(path, lambda header: [one for one in header.tensors if one.name == "a"])[1]) == ["a"]
    with pytest.raises(NotSupported, match="'b'"):
        read_gguf(path, everything)


def header(tensors: int = 1, values: int = 0, rest: bytes = b"", version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, values) + rest


def described(count: int, offset: int = 0, name: bytes = b"direction.1", kind: int = 0, axes: int = 1) -> bytes:
    text = struct.pack("<Q", len(name)) + name
    return text + struct.pack("<I", axes) + struct.pack(f"<{axes}Q", *[count] * axes) + struct.pack("<IQ", kind, offset)


LIES = {
    "version": header(version=1),
    "many values": header(values=2**60),
    "many tensors": header(tensors=2**63),
    "a long name": header(values=1, rest=struct.pack("<Q", 2**62)),
    "a long text": header(values=1, rest=struct.pack("<Q1sIQ", 1, b"k", 8, 2**62)),
    "a long array": header(values=1, rest=struct.pack("<Q1sIIQ", 1, b"k", 9, 4, 2**62)),
    "many texts": header(values=1, rest=struct.pack("<Q1sIIQ", 1, b"k", 9, 8, 2**62)),
    "arrays of arrays": header(values=1, rest=struct.pack("<Q1sIIQ", 1, b"k", 9, 9, 1) + bytes(64)),
    "an unknown type": header(values=1, rest=struct.pack("<Q1sI", 1, b"k", 99) + bytes(64)),
    "many axes": header(rest=described(2, axes=200) + bytes(64)),
    "a huge tensor": header(rest=described(2**40) + bytes(64)),
    "a tensor whose size overflows": header(rest=described(2**62, axes=4) + bytes(64)),
    "a tensor far away": header(rest=described(2, offset=2**63) + bytes(64)),
    "no UTF-8": header(rest=described(2, name=b"\xff\xfe") + bytes(64)),
    "one tensor twice": header(tensors=2, rest=2 * described(2) + bytes(128)),
    "many tensors in the same bytes": header(
        tensors=64, rest=b"".join(described(1024, name=b"t%d" % number) for number in range(64)) + bytes(8192)
    ),
    "an alignment of zero": header(
        values=1, rest=struct.pack("<Q17sII", 17, b"general.alignment", 4, 0) + described(2) + bytes(64)
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_files_that_lie_are_refused_in_one_line(tmp_path: Path, lie: str) -> None:
    path = tmp_path / "file.gguf"
    path.write_bytes(LIES[lie])
    with pytest.raises(BadFile, match=r"'file\.gguf' is damaged: ") as problem:
        read_gguf(path, everything)
    assert "\n" not in str(problem.value) and len(str(problem.value)) < 200


def test_every_cut_and_many_changes_of_bytes_are_met(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.gguf", {"direction.1": np.ones(4, np.float32)}, number=5).read_bytes()
    path, random, refused = tmp_path / "file.gguf", Random(0), 0
    damaged = [whole[:length] for length in range(len(whole))]
    for _ in range(400):
        changed = bytearray(whole)
        for _ in range(random.randint(1, 4)):
            changed[random.randrange(len(changed))] = random.choice([0, 1, 127, 128, 255])
        damaged.append(bytes(changed))
    for data in damaged:
        path.write_bytes(data)
        try:
            _, found = read_gguf(path, everything)
        except OptrodeError as problem:
            refused += 1
            assert "\n" not in str(problem)
        else:
            assert sum(value.numel() for value in found.values()) <= len(data)
    assert refused > len(whole) - 32, "a cut file is damaged, but for what fills up its end"


def test_what_is_no_gguf_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFile):
        read_gguf(tmp_path / "nothing.gguf", everything)
    (tmp_path / "text.gguf").write_text("hello")
    with pytest.raises(BadFile, match="first four bytes"):
        read_gguf(tmp_path / "text.gguf", everything)
