"""Reading a store: any rows in any order, each once when shuffled, and nothing that the files do not say."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

import optrode as op
from optrode.errors import BadInput, MissingFile, UnknownSite
from optrode.store.shuffle import Permutation

bounds = st.one_of(st.none(), st.integers(-800, 800))
SITE = "layers.2.out"


@given(bounds, bounds, st.sampled_from([None, 1, 3, -1]))
def test_slices_are_those_of_the_whole(stored: op.Store, whole: torch.Tensor, first: Any, stop: Any, step: Any) -> None:
    expected = whole[torch.arange(700)[slice(first, stop)]] if step in (None, 1) else torch.from_numpy(
        whole.numpy()[slice(first, stop, step)].copy()
    )  # fmt: skip
    assert torch.equal(stored[SITE][slice(first, stop, step)], expected)


@given(st.lists(st.integers(-700, 699), max_size=40))
def test_picked_rows_are_those_of_the_whole(stored: op.Store, whole: torch.Tensor, rows: list[int]) -> None:
    expected = whole[torch.tensor(rows, dtype=torch.long)]
    assert torch.equal(stored[SITE][rows], expected)
    assert torch.equal(stored[SITE][torch.tensor(rows, dtype=torch.long)], expected)
    assert torch.equal(stored[SITE][np.array(rows, dtype=int)], expected)
    if rows:
        assert torch.equal(stored[SITE][rows[0]], expected[0])


def test_masks_select_and_wrong_rows_are_refused(stored: op.Store, whole: torch.Tensor) -> None:
    mask = torch.arange(700) % 7 == 0
    assert torch.equal(stored[SITE][mask], whole[mask])
    for wrong in (700, [-701], [0, 700]):
        with pytest.raises(IndexError, match="700 rows has no row"):
            stored[SITE][wrong]  # type: ignore[index]
    with pytest.raises(BadInput, match="rows must be"):
        stored[SITE][[0.5]]  # type: ignore[list-item]
    with pytest.raises(UnknownSite, match=r"did you mean layers.2.out"):
        stored["layers.2.uot"]


def test_what_is_read_can_be_written_to_and_the_store_stays(stored: op.Store, whole: torch.Tensor) -> None:
    for rows in (stored[SITE][:5], stored[SITE][[1, 2]], next(iter(stored.shuffled(8)))[SITE]):
        rows.zero_()
    assert torch.equal(stored[SITE][:5], whole[:5])
    assert stored.verify() == []


# Shuffling ------------------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(st.integers(1, 3000), st.integers(0, 2**31), st.integers(0, 5))
def test_a_permutation_has_each_number_once(count: int, seed: int, epoch: int) -> None:
    order = Permutation(count, seed, epoch)(np.arange(count))
    assert np.array_equal(np.sort(order), np.arange(count))


def test_a_permutation_is_random() -> None:
    count = 10_000
    order = Permutation(count, 0, 0)(np.arange(count))
    # Neighbours, halves and the correlation of place and number, against five standard deviations of true chance.
    assert np.mean(np.abs(np.diff(order)) == 1) < 2 / count + 5 * (2 / count / count) ** 0.5
    assert abs(np.corrcoef(np.arange(count), order)[0, 1]) < 5 / count**0.5
    firsts = [int(Permutation(8, seed, 0)(np.array([0]))[0]) for seed in range(800)]
    assert np.bincount(firsts, minlength=8).min() > 100 - 5 * 100**0.5
    assert not np.array_equal(order, Permutation(count, 0, 1)(np.arange(count)))
    assert np.array_equal(order, Permutation(count, 0, 0)(np.arange(count)))


@settings(max_examples=20)
@given(st.integers(1, 800), st.integers(0, 99), st.integers(0, 3))
def test_shuffled_batches_have_each_row_once(
    stored: op.Store, whole: torch.Tensor, size: int, seed: int, epoch: int
) -> None:
    batches = list(stored.shuffled(size, sites=SITE, seed=seed, epoch=epoch))
    assert len(batches) == len(stored.shuffled(size))
    assert {len(batch["row"]) for batch in batches[:-1]} <= {size}
    rows = torch.cat([batch["row"] for batch in batches])
    assert torch.equal(rows.sort().values, torch.arange(700))
    assert torch.equal(torch.cat([batch[SITE] for batch in batches]), whole[rows])
    assert set(batches[0]) == {SITE, "row"}


def test_the_order_mixes_single_rows_of_all_shards(stored: op.Store) -> None:
    first = next(iter(stored.shuffled(64)))["row"]
    ends = torch.tensor([shard.first_row + shard.rows for shard in stored.shards])
    assert len(torch.searchsorted(ends, first, right=True).unique()) == len(stored.shards)
    assert (first.sort().values.diff() == 1).sum() < 20
    again = stored.shuffled(64).at(epoch=1)
    assert not torch.equal(next(iter(again))["row"], first)


@pytest.mark.parametrize("workers", [0, 2])
def test_loaders_of_torch(stored: op.Store, whole: torch.Tensor, workers: int) -> None:
    batches = list(DataLoader(stored.shuffled(100), batch_size=None, num_workers=workers))
    rows = torch.cat([batch["row"] for batch in batches])
    assert torch.equal(rows.sort().values, torch.arange(700))
    assert torch.equal(torch.cat([batch[SITE] for batch in batches]), whole[rows])
    by_row = list(DataLoader(stored[SITE], batch_size=300, num_workers=workers))
    assert torch.equal(torch.cat(by_row), whole)


def test_batches_in_order(stored: op.Store, whole: torch.Tensor) -> None:
    batches = list(stored.batches(64, sites="layers.2.*"))
    assert torch.equal(torch.cat([batch["row"] for batch in batches]), torch.arange(700))
    assert torch.equal(torch.cat([batch[SITE] for batch in batches]), whole)
    assert all(len(shard.mask) == shard.rows for shard in stored.shards)


# What the rows are, elsewhere ---------------------------------------------------------------------------------------


def test_metadata_of_some_rows(stored: op.Store) -> None:
    whole = stored.metadata()
    rows = [650, 3, 3, 149]
    assert stored.metadata(rows).equals(whole.loc[rows])
    assert stored.metadata(slice(140, 160)).equals(whole.iloc[140:160])
    assert list(whole.index) == list(range(700))


def test_xarray(stored: op.Store, whole: torch.Tensor) -> None:
    array = stored.to_xarray(SITE, slice(100, 110))
    assert array.dims == ("row", "feature") and list(array.row.values) == list(range(100, 110))
    assert np.array_equal(array.values, whole[100:110].numpy())
    assert list(array.token_id.values) == list(stored.metadata(slice(100, 110)).token_id)
    assert array.attrs["equation"] == "mid + mlp.out"


def test_bfloat16_is_read_as_such_and_labelled_as_float32(make_store: Callable[..., op.Store], tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", dtype="bfloat16")
    assert store[SITE][3:6].dtype is torch.bfloat16
    assert store.to_xarray(SITE, [0, 5]).dtype == np.float32


def test_a_store_travels_to_other_processes(stored: op.Store) -> None:
    copy = pickle.loads(pickle.dumps(stored))
    assert copy.hash == stored.hash and torch.equal(copy[SITE][5:9], stored[SITE][5:9])


def test_it_says_what_it_is(stored: op.Store) -> None:
    assert "700 tokens x 2 sites, own" in repr(stored)
    assert repr(stored[SITE]) == f"{SITE}: [700, 32] float32"
    assert set(stored.recipe["model"]) == {"config", "tokenizer", "weights"}
    assert stored.nbytes == 700 * 2 * 32 * 4


def test_each_shard_can_be_read_without_optrode(stored: op.Store, whole: torch.Tensor) -> None:
    import json

    import pyarrow.parquet as pq
    from safetensors import safe_open

    shard = stored.shards[1]
    folder = stored.storage.path  # type: ignore[attr-defined]
    with safe_open(folder / shard.names.values, "pt") as file:
        assert torch.equal(file.get_tensor(SITE), whole[shard.first_row : shard.first_row + shard.rows])
        says = json.loads(file.metadata()["optrode"])
    assert says["recipe"] == stored.recipe and says["made"]["optrode"] == op.__version__
    assert pq.read_table(folder / shard.names.tokens).num_rows == shard.rows


def test_there_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="there is no store at"):
        op.open(tmp_path / "absent")


# Other file systems -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [None, "float16_scaled"])
def test_fsspec_urls(make_store: Callable[..., op.Store], whole: torch.Tensor, dtype: Any, tmp_path: Path) -> None:
    import fsspec

    url = f"memory://{tmp_path.name}{dtype}/store"
    store, local = make_store(url, dtype=dtype), make_store(f"file://{tmp_path}/store", dtype=dtype)
    assert store.hash == local.hash
    assert (tmp_path / "store" / "store.json").exists()
    opened = op.open(url)
    assert torch.equal(opened[SITE][:], local[SITE][:])
    rows = [3, 650, 4, 4, 300]
    assert torch.equal(opened[SITE][rows], local[SITE][rows])
    batch = next(iter(opened.shuffled(50, sites=SITE)))
    assert torch.equal(batch[SITE], local[SITE][batch["row"]])
    assert opened.verify() == [] and len(opened.metadata()) == 700
    system = fsspec.filesystem("memory")
    files = {path.rpartition("/")[2] for path in system.ls(url.removeprefix("memory:/"), detail=False)}
    assert "writer.json" not in files
    assert files == {path.name for path in (tmp_path / "store").iterdir()} - {"writer.lock"}


def test_opening_takes_two_requests(make_store: Callable[..., op.Store], monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    make_store("memory://counted/store")
    read, plain = [], MemoryFileSystem.cat_file

    def counted(self: Any, path: str, *places: Any, **options: Any) -> bytes:
        read.append(path.rpartition("/")[2])
        return plain(self, path, *places, **options)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", counted)
    store = op.open("memory://counted/store")
    assert sorted(read) == ["index.json", "store.json"]
    read.clear()
    store[SITE][10:20]
    assert len(read) == 1
