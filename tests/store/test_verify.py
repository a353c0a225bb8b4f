"""A changed byte anywhere is found, told with its shard and site, and repaired."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import optrode as op
from optrode.errors import BadFile, BadInput, MissingFile, StoreMismatch
from optrode.store.verify import repair, verify

Make = Callable[..., op.Store]
FILES = (
    "store.json", "index.json", "shard-00001.json", "shard-00001.safetensors", "shard-00001.tokens.parquet",
    "shard-00001.documents.parquet",
)  # fmt: skip


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << (place % 8)
    path.write_bytes(data)


@pytest.fixture
def copied(stored: op.Store, tmp_path: Path) -> Path:
    """A store that may be damaged."""
    return Path(shutil.copytree(stored.storage.where, tmp_path / "copied"))


@pytest.mark.parametrize("name", FILES)
def test_any_changed_byte_is_found_and_repaired(
    copied: Path, stored: op.Store, llama: op.Model, texts: list[str], name: str
) -> None:
    whole = (copied / name).read_bytes()
    for place in {0, len(whole) - 1, *random.Random(name).sample(range(len(whole)), 12)}:
        flip(copied / name, place)
        faults = verify(copied)
        assert [fault.file for fault in faults] == [name], (place, faults)
        assert faults[0].shard == (1 if name.startswith("shard") else None)
        (copied / name).write_bytes(whole)
    flip(copied / name, len(whole) // 2)
    done = repair(copied, llama, texts)
    assert done.store.hash == stored.hash and done.store.complete
    assert verify(copied) == []
    assert (copied / name).read_bytes() == whole


def test_damage_of_values_names_the_site_and_is_met_by_reads_that_check(copied: Path, stored: op.Store) -> None:
    shard = stored.shards[2]
    place = shard._layout.places["layers.2.out"]
    flip(copied / shard.names.values, shard.receipt.begins + place.start + 5)
    (fault,) = verify(copied)
    assert (fault.shard, fault.site) == (2, "layers.2.out")
    assert str(fault).startswith("shard 2, layers.2.out: damaged in 1 of")
    store = op.open(copied, check=True)
    first = shard.first_row
    for read in (
        lambda: store["layers.2.out"][first : first + 3],
        lambda: store["layers.2.out"][[0, first]],
        lambda: list(store.shuffled(64)),
        lambda: list(store.batches(64)),
    ):
        with pytest.raises(BadFile, match=r"shard 2 of .* is damaged at layers.2.out: run optrode store repair"):
            read()
    assert torch.equal(store["layers.0.out"][first : first + 3], stored["layers.0.out"][first : first + 3])
    assert torch.equal(store["layers.2.out"][:first], stored["layers.2.out"][:first])


def test_damaged_scales_are_found(make_store: Make, tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", dtype="float16_scaled")
    shard = store.shards[0]
    place = shard._layout.places["layers.0.out#scale"]
    flip(tmp_path / "s" / shard.names.values, shard.receipt.begins + place.start)
    (fault,) = store.verify()
    assert (fault.shard, fault.site) == (0, "layers.0.out")


@pytest.mark.parametrize("name", FILES)
def test_missing_files_are_found_and_repaired(
    copied: Path, stored: op.Store, llama: op.Model, texts: list[str], name: str
) -> None:
    (copied / name).unlink()
    if name != "index.json":
        assert [fault.file for fault in verify(copied)] == [name]
    assert repair(copied, llama, texts).store.hash == stored.hash
    assert {path.name for path in copied.iterdir()} == {path.name for path in Path(stored.storage.where).iterdir()}


def test_a_file_that_is_cut_short(copied: Path, stored: op.Store) -> None:
    path = copied / "shard-00001.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    (fault,) = verify(copied)
    assert (fault.shard, fault.what) == (1, f"has {path.stat().st_size} bytes, not {path.stat().st_size + 10}")
    with pytest.raises(BadFile, match="cut short"):
        op.open(copied)["layers.2.out"][:]


def test_dropping_leaves_a_store_without_the_bad_shards(
    copied: Path, stored: op.Store, llama: op.Model, texts: Any
) -> None:
    flip(copied / "shard-00001.safetensors", 3000)
    done = repair(copied)
    assert done.dropped == [1] and not done.store.complete
    assert len(done.store) == 700 - stored.shards[1].rows
    assert verify(copied) == []
    first = stored.shards[1].first_row
    expected = torch.cat([stored["layers.2.out"][:first], stored["layers.2.out"][first + stored.shards[1].rows :]])
    assert torch.equal(done.store["layers.2.out"][:], expected)
    # And the harvest's own call makes it whole.
    assert repair(copied, llama, texts).store.hash == stored.hash


def test_a_repair_needs_the_same_model_and_data(
    copied: Path, llama: op.Model, make_model: Any, texts: list[str]
) -> None:
    flip(copied / "shard-00001.safetensors", 3000)
    with pytest.raises(BadInput, match="give the same list as data"):
        repair(copied, llama)
    with pytest.raises(StoreMismatch, match="other weights"):
        repair(copied, make_model("llama", seed=3), texts)
    with pytest.raises(StoreMismatch, match="the data has changed"):
        repair(copied, llama, texts[1:])
    with pytest.raises(MissingFile, match="there is no store"):
        repair(copied.parent / "absent")
