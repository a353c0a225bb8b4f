"""A store that somebody made on purpose: its hashes fit, and what it says is not what a harvest writes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import optrode as op
from optrode.errors import BadFile, OptrodeError
from optrode.store.documents import documents_of
from optrode.store.receipts import dump, sealed
from optrode.store.verify import verify


@pytest.fixture
def forged(stored: op.Store, tmp_path: Path) -> Callable[..., Path]:
    """A copy of a store with something changed in `store.json` or the first receipt, and all seals made again."""
    folder = tmp_path / "store"
    shutil.copytree(stored.storage.where, folder)

    def make(name: str, change: Callable[[dict[str, Any]], Any]) -> Path:
        path = folder / name
        value = json.loads(path.read_bytes())
        if name == "index.json":
            change(value["shards"][0])
            value["shards"] = [sealed({k: v for k, v in one.items() if k != "seal"}) for one in value["shards"]]
        else:
            change(value)
        path.write_bytes(dump(sealed({key: part for key, part in value.items() if key != "seal"})))
        return folder

    return make


RECEIPTS = {
    "path": {"shard": "../../secret"}, "less than none": {"rows": -1}, "fraction": {"rows": 2.5},
    "begins": {"begins": -8},
    "bool": {"blocks": True}, "huge": {"rows": 10**30}, "blocks": {"blocks": 2**40},
    "cursor": {"start": {"document": -1}},
    "checksums": {"checksums": {}}, "tables": {"tables": {"tokens": 3}}, "ends": {"ends": 1},
}  # fmt: skip


@pytest.mark.parametrize("name", RECEIPTS)
def test_receipts_of_other_values_are_refused(name: str, forged: Callable[..., Path]):
    with pytest.raises(BadFile, match="update optrode"):
        op.open(forged("index.json", lambda shard: shard.update(RECEIPTS[name])))


SITES = {
    # A name in torch that is a module, which would be imported.
    "module": {"own": "onnx"}, "dtype": {"kept": 3}, "empty": {"shape": [0]}, "less": {"shape": [-4]},
    "address": {"address": "a\nb"}, "axes": {"axes": []}, "scaled": {"scaled": "yes"},
}  # fmt: skip


@pytest.mark.parametrize("name", SITES)
def test_sites_of_other_values_are_refused(name: str, forged: Callable[..., Path]):
    with pytest.raises(BadFile, match="does not say what the store holds"):
        op.open(forged("store.json", lambda value: value["recipe"]["sites"][0].update(SITES[name])))


def _table(folder: Path, kind: str, change: Callable[[pa.Table], pa.Table], forged: Callable[..., Path]) -> Path:
    path = folder / f"shard-00000.{kind}.parquet"
    pq.write_table(change(pq.read_table(path)), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return forged("index.json", lambda shard: shard["tables"].update({kind: digest}))


TABLES: dict[str, tuple[str, Callable[[pa.Table], pa.Table]]] = {
    "missing": ("tokens", lambda table: table.drop_columns(["mask"])),
    "other kind": ("tokens", lambda table: table.drop_columns(["mask"]).append_column("mask", table["text"])),
    "more rows": ("tokens", lambda table: pa.concat_tables([table, table])),
    "twice": ("documents", lambda table: table.append_column("block", table["block"])),
    "out of range": (
        "documents", lambda table: table.set_column(8, "block", pa.array([10**6] * len(table), pa.int32())),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_other_rows_are_refused(name: str, forged: Callable[..., Path], tmp_path: Path):
    folder = _table(tmp_path / "store", *TABLES[name], forged)
    store = op.open(folder)
    with pytest.raises(BadFile, match="is damaged"):
        store.metadata(), store.documents(), store.shards[0].mask, store.shards[0].check("layers.2.out")
    assert all(isinstance(str(fault), str) for fault in verify(folder))


@pytest.mark.parametrize("name", ["store.json", "index.json", "shard-00000.safetensors", "shard-00000.tokens.parquet"])
@pytest.mark.parametrize("thing", ["pipe", "folder", "device"])
def test_what_is_no_file_is_refused_at_once(name: str, thing: str, forged: Callable[..., Path], tmp_path: Path):
    path = tmp_path / "store" / name
    path.unlink()
    {"pipe": os.mkfifo, "folder": os.mkdir, "device": lambda at: os.symlink("/dev/zero", at)}[thing](path)
    with pytest.raises(BadFile, match="no file"):
        store = op.open(tmp_path / "store")
        store["layers.2.out"][:3], store.metadata()


def test_an_index_without_its_hash_is_a_fault(forged: Callable[..., Path], tmp_path: Path):
    path = tmp_path / "store" / "index.json"
    value = {key: part for key, part in json.loads(path.read_bytes()).items() if key not in ("seal", "hash")}
    path.write_bytes(dump(sealed(value)))
    assert [fault.file for fault in verify(tmp_path / "store")] == ["index.json"]


# Documents of a harvest ----------------------------------------------------------------------------------------------


def _dataset(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize("named", ["../secret.arrow", "/etc/passwd", "x/y.arrow", "secret.txt", 3, None])
def test_a_dataset_names_no_files_outside_of_it(named: Any, tmp_path: Path):
    (tmp_path / "secret.arrow").write_bytes(b"secret")
    state = json.dumps({"_data_files": [{"filename": named}]}).encode()
    with pytest.raises(BadFile, match=r"state\.json"):
        documents_of(str(_dataset(tmp_path / "data", {"state.json": state, "a.arrow": b""})))


SPLITS = [b"[]", b"{}", b'{"splits": 3}', b'{"splits": [1]}', b"\xff", b"[" * 100_000, b'{"splits": []}']


@pytest.mark.parametrize("said", SPLITS)
def test_splits_that_are_none(said: bytes, tmp_path: Path):
    with pytest.raises(OptrodeError) as refused:
        documents_of(str(_dataset(tmp_path / "data", {"dataset_dict.json": said})))
    assert str(refused.value).isprintable()


def test_offsets_of_arrow_that_lie_are_not_followed(tmp_path: Path):
    sink = pa.BufferOutputStream()
    table = pa.table({"text": ["one", "two", "three"]})
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    stream = sink.getvalue().to_pybytes()
    offsets = struct.pack("<4i", 0, 3, 6, 11)
    assert offsets in stream
    # The last one still is that of the file, and the one before lies: Arrow looks at both ends only.
    stream = stream.replace(offsets, struct.pack("<4i", 0, 50_000_000, 60_000_000, 11))
    state = json.dumps({"_data_files": [{"filename": "a.arrow"}]}).encode()
    data = documents_of(str(_dataset(tmp_path / "data", {"state.json": state, "a.arrow": stream})))
    with pytest.raises(BadFile, match="is damaged"):
        list(data.starting(0))


DAMAGED = [("a.jsonl", b"[" * 100_000), ("a.parquet", b"PAR1" * 9), ("a.parquet", b""), ("a.png", b"\x89PNG")]


@pytest.mark.parametrize("name, data", DAMAGED)
def test_damaged_data_is_one_line(name: str, data: bytes, tmp_path: Path):
    found = documents_of(str(_dataset(tmp_path, {name: data})))
    with pytest.raises(BadFile) as refused:
        [document.content.open() for document in found.starting(0) if not isinstance(document.content, str | list)]
    assert str(refused.value).isprintable()


def test_a_pipe_among_the_data_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "a.txt")
    with pytest.raises(BadFile, match="no file"):
        documents_of(str(tmp_path / "a.txt"))
