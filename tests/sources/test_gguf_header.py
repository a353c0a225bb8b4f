"""Headers whose counts, shapes and offsets are lies are refused before anything is allocated for them."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from optrode.errors import BadFile
from optrode.sources import open_source
from optrode.sources.gguf_header import read_header


def test_a_header_says_what_the_file_holds(tiny_gguf: Path):
    header = read_header(tiny_gguf)
    assert header.values["general.architecture"] == "llama" and header.values["llama.block_count"] == 2
    assert header.arrays["tokenizer.ggml.tokens"] == 100 and header.tensors["blk.1.ffn_up.weight"] == (32, 64)
    assert header.elements == sum(a * b for a, b in (s if len(s) == 2 else (*s, 1) for s in header.tensors.values()))


def _after(data: bytes, name: bytes) -> int:
    return data.index(name) + len(name)


def _put(data: bytes, place: int, form: str, value: int) -> bytes:
    packed = struct.pack(form, value)
    return data[:place] + packed + data[place + len(packed) :]


LIES = {
    "tensors": lambda data: _put(data, 8, "<Q", 2**62),
    "fields": lambda data: _put(data, 16, "<Q", 2**62),
    "length of a name": lambda data: _put(data, 24, "<Q", 2**63),
    # Behind the name of an array stand its type, that of its entries, and its count.
    "entries": lambda data: _put(data, _after(data, b"tokenizer.ggml.token_type") + 8, "<Q", 2**60),
    "texts": lambda data: _put(data, _after(data, b"tokenizer.ggml.tokens") + 8, "<Q", 2**60),
    "nested": lambda data: _put(data, _after(data, b"tokenizer.ggml.token_type") + 4, "<I", 9),
    "blocks": lambda data: _put(data, _after(data, b"llama.block_count") + 4, "<I", 2**31),
    "width": lambda data: _put(data, _after(data, b"llama.embedding_length") + 4, "<I", 2**31),
    "heads": lambda data: _put(data, _after(data, b"llama.rope.dimension_count") + 4, "<I", 2**31),
    "axes": lambda data: _put(data, _after(data, b"blk.0.attn_q.weight"), "<I", 2**31),
    "shape": lambda data: _put(data, _after(data, b"blk.0.attn_q.weight") + 4, "<Q", 2**40),
    "no shape": lambda data: _put(data, _after(data, b"blk.0.attn_q.weight") + 4, "<Q", 0),
    "type": lambda data: _put(data, _after(data, b"blk.0.attn_q.weight") + 20, "<I", 99),
    "offset": lambda data: _put(data, _after(data, b"blk.0.attn_q.weight") + 24, "<Q", 2**40),
    "twice": lambda data: data.replace(b"blk.0.attn_q.weight", b"blk.0.attn_k.weight"),
    "missing": lambda data: data.replace(b"blk.1.attn_q.weight", b"blk.1.attn_z.weight"),
    "version": lambda data: _put(data, 4, "<I", 77),
    "no text": lambda data: data.replace(b"general.name", b"general.\xff\xfe\xff\xfe"),
}


@pytest.mark.parametrize("lie", LIES)
def test_lies_are_refused_and_leave_nothing(lie: str, tiny_gguf: Path, own_home: Path, tmp_path: Path):
    path = tmp_path / "lie.gguf"
    data = LIES[lie](tiny_gguf.read_bytes())
    assert data != tiny_gguf.read_bytes()
    path.write_bytes(data)
    with pytest.raises(BadFile, match=r"lie\.gguf") as refused:
        open_source(path)
    assert str(refused.value).isprintable() and len(str(refused.value)) < 400
    converted = own_home / "converted"
    assert not converted.exists() or not list(converted.iterdir())


def test_a_pipe_is_not_waited_for(own_home: Path, tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(BadFile, match="pipe"):
        open_source(tmp_path / "pipe.gguf")
