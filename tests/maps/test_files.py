"""Maps that somebody made on purpose are refused in one line, without memory for what they say they are."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optrode.errors import BadFile
from optrode.maps import Map

KNOWN = {"format": "optrode.map/1", "labels": {"layer": [0, 1]}, "unit": "nats", "notes": {}, "values": [1.0, 2.0]}


def refused(path: Path) -> str:
    with pytest.raises(BadFile, match="is no map") as told:
        Map.load(path)
    assert str(told.value).isprintable() and len(str(told.value)) < 400
    return str(told.value)


JSON: dict[str, Any] = {
    "no table": [], "no axes": KNOWN | {"labels": {}, "values": 5},
    "half a character": KNOWN | {"labels": {"a": ["\ud800", 1]}},
    "labels": KNOWN | {"labels": {"layer": [[1], {}]}}, "shape": KNOWN | {"labels": {"layer": [0, 1, 2]}},
    "number": KNOWN | {"values": [10**400, 1]}, "base": KNOWN | {"base": [1, 2, 3]},
    "text": KNOWN | {"values": ["x", "y"]},
    "format": KNOWN | {"format": "\x1b[2J" * 500}, "unit": KNOWN | {"unit": "\ud800"},
}  # fmt: skip


@pytest.mark.parametrize("name", JSON)
def test_json_of_other_values(name: str, tmp_path: Path):
    (tmp_path / "a.json").write_text(json.dumps(JSON[name]))
    refused(tmp_path / "a.json")


def test_json_that_is_deep(tmp_path: Path):
    (tmp_path / "a.json").write_bytes(b"[" * 100_000)
    refused(tmp_path / "a.json")


def _archive(path: Path, values: bytes, packed: int = zipfile.ZIP_STORED) -> Path:
    about = json.dumps({key: value for key, value in KNOWN.items() if key != "values"}).encode()
    with zipfile.ZipFile(path, "w", packed) as archive:
        out = io.BytesIO()
        np.save(out, np.frombuffer(about, np.uint8))
        archive.writestr("about.npy", out.getvalue())
        archive.writestr("values.npy", values)
    return path


def _array(header: str, data: bytes = b"\0" * 16) -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def test_the_archive_itself_is_read(tmp_path: Path):
    plain = _array("{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }")
    assert Map.load(_archive(tmp_path / "a.npz", plain)).values.tolist() == [0, 0]


def test_arrays_that_say_they_are_larger(tmp_path: Path):
    lie = _array("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }")
    assert "cut short" in refused(_archive(tmp_path / "a.npz", lie))


def test_compressed_arrays_may_be_bombs(tmp_path: Path):
    plain = _array("{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }")
    assert "compressed" in refused(_archive(tmp_path / "a.npz", plain, zipfile.ZIP_DEFLATED))


@pytest.mark.parametrize(
    "header",
    ["__import__('os').system('true')", "{'descr': '|O', 'fortran_order': False, 'shape': (2,)}", "(" * 200, ""],
)
def test_headers_that_are_code_or_none(header: str, tmp_path: Path):
    refused(_archive(tmp_path / "a.npz", _array(header)))
