"""Whatever stops a harvest, it goes on and ends as if nothing had; what is another harvest is refused."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import optrode as op
import optrode.store.run
from optrode.errors import NoSpace, StoreInUse, StoreMismatch

ROOT = Path(__file__).parents[2]
Make = Callable[..., op.Store]


def files(folder: Path) -> dict[str, bytes]:
    """The files of a store, without the lock."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "writer.lock"}


def killed(kills: int) -> dict[str, Any]:
    """Runs `tools/kill_harvest.py` in a process of its own, since it forks."""
    command = [sys.executable, str(ROOT / "tools" / "kill_harvest.py"), "--kills", str(kills)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    assert found["failures"] == [] and done.returncode == 0
    assert found["kills"] == kills
    return found


def test_three_kills() -> None:
    found = killed(3)
    assert found["shards"] > 20


@pytest.mark.slow
def test_twenty_kills() -> None:
    found = killed(20)
    # The moments must have been such that something was there to lose.
    assert found["partial_files_seen"] > 0 and found["most_rows_in_vain"] > 0


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, BaseException], None]:
    """After so many forwards the next one raises."""

    def arrange(forwards: int, problem: BaseException) -> None:
        done, plain = [0], optrode.store.run.HarvestRun._forward

        def forward(run: Any, *arguments: Any) -> int:
            done[0] += 1
            if done[0] == forwards:
                raise problem
            return plain(run, *arguments)

        monkeypatch.setattr(optrode.store.run.HarvestRun, "_forward", forward)

    return arrange


@pytest.mark.parametrize("dtype", ["own", "float16_scaled"])
def test_a_stopped_harvest_goes_on_and_is_the_same_to_the_byte(
    make_store: Make, stop_after: Any, monkeypatch: pytest.MonkeyPatch, dtype: str, tmp_path: Path
) -> None:
    whole = make_store(tmp_path / "whole", dtype=dtype)
    for forwards in (1, 2, 4, 5):
        with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="lost"):
            plain = optrode.store.run.HarvestRun._forward
            stop_after(forwards, RuntimeError("lost"))
            try:
                make_store(tmp_path / "s", dtype=dtype)
            finally:
                patch.setattr(optrode.store.run.HarvestRun, "_forward", plain)
                monkeypatch.setattr(optrode.store.run.HarvestRun, "_forward", plain)
        assert not [name for name in os.listdir(tmp_path / "s") if name.endswith(".partial")]
        assert not op.open(tmp_path / "s").complete
        assert op.open(tmp_path / "s").verify() == []
    store = make_store(tmp_path / "s", dtype=dtype)
    assert store.hash == whole.hash
    assert files(tmp_path / "s") == files(tmp_path / "whole")


def test_nothing_runs_again_for_a_store_that_is_complete(make_store: Make, stop_after: Any, tmp_path: Path) -> None:
    store = make_store(tmp_path / "s")
    before = files(tmp_path / "s")
    stop_after(1, AssertionError("it ran"))
    assert make_store(tmp_path / "s").hash == store.hash
    assert files(tmp_path / "s") == before


def test_an_interrupt_says_what_is_safe_and_how_to_go_on(make_store: Make, stop_after: Any, tmp_path: Path) -> None:
    stop_after(3, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt, match=r"^1\d\d rows are safe in .*; the same call goes on"):
        make_store(tmp_path / "s")
    assert len(op.open(tmp_path / "s").shards) == 1


def test_a_store_that_is_not_complete_can_be_read(
    make_store: Make, stop_after: Any, whole: Any, tmp_path: Path
) -> None:
    stop_after(5, RuntimeError("lost"))
    with pytest.raises(RuntimeError):
        make_store(tmp_path / "s")
    store = op.open(tmp_path / "s")
    assert "not complete" in repr(store) and 0 < len(store) < 700
    assert torch.equal(store["layers.2.out"][:], whole[: len(store)])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"dtype": "float16"}, "dtype is 'own', not 'float16'"),
        ({"tokens": 701}, "tokens is 700, not 701"),
        ({"sites": "layers.0.out"}, "sites are layers.0.out, layers.2.out, not layers.0.out"),
        ({"context": 20}, "context is 256, not 20"),
        ({"positions": "index:0"}, "positions is None, not 'index:0'"),
        ({"system": "Be brief."}, "system is None"),
        ({"shard_rows": 10}, "shard_rows is 150"),
        ({"tokens_per_forward": 121}, "tokens_per_forward is 120"),
        ({"template": "chat"}, "template is None"),
    ],
)
def test_other_settings_are_refused(
    make_store: Make, options: dict[str, Any], says: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "refusing"
    store = make_store(folder)
    with pytest.raises(StoreMismatch, match=f"is another harvest: .*{says}.*same settings"):
        make_store(folder, **options)
    assert op.open(folder).hash == store.hash


def test_another_model_and_other_data_are_refused(
    make_store: Make, make_model: Any, texts: list[str], tmp_path: Path
) -> None:
    (tmp_path / "d.txt").write_text("\n".join(texts))
    make_store(tmp_path / "s", data=tmp_path / "d.txt", tokens=None)
    with pytest.raises(StoreMismatch, match="a model with other weights"):
        make_store(tmp_path / "s", data=tmp_path / "d.txt", tokens=None, model=make_model("llama", seed=7))
    with pytest.raises(StoreMismatch, match="a model with other config and weights"):
        make_store(tmp_path / "s", data=tmp_path / "d.txt", tokens=None, model=make_model("qwen3"))
    (tmp_path / "d.txt").write_text("\n".join([*texts[:-1], texts[-1] + "!"]))
    with pytest.raises(StoreMismatch, match="the data has changed since"):
        make_store(tmp_path / "s", data=tmp_path / "d.txt", tokens=None)


def test_going_on_with_other_threads_is_said(make_store: Make, stop_after: Any, tmp_path: Path) -> None:
    stop_after(3, RuntimeError("lost"))
    with pytest.raises(RuntimeError, match="lost"):
        make_store(tmp_path / "s")
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        with pytest.warns(UserWarning, match=f"was begun with threads {threads}, now {threads + 1}: .* last bits"):
            make_store(tmp_path / "s")
    finally:
        torch.set_num_threads(threads)


# Two writers ----------------------------------------------------------------------------------------------------------


def test_a_second_writer_is_told_who_the_first_is(make_store: Make, stop_after: Any, tmp_path: Path) -> None:
    stop_after(2, RuntimeError("lost"))
    with pytest.raises(RuntimeError):
        make_store(tmp_path / "s")
    code = (
        "import sys, pathlib\nfrom optrode.store.lock import LocalLock\n"
        "with LocalLock(sys.argv[1], pathlib.Path(sys.argv[1])):\n    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "s")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdin is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(StoreInUse, match=f"being written by process {other.pid} on .*: wait for it"):
            make_store(tmp_path / "s")
        # A writer that is killed leaves no lock behind.
        other.kill()
    assert make_store(tmp_path / "s").complete


def test_writers_of_object_storage_leave_a_note(make_store: Make, tmp_path: Path) -> None:
    import time

    import fsspec

    url, system = f"memory://{tmp_path.name}/locked", fsspec.filesystem("memory")

    def note(**owner: Any) -> None:
        system.pipe_file(f"/{tmp_path.name}/locked/writer.json", json.dumps(owner).encode())

    note(process=1, host="elsewhere", at=time.time())
    with pytest.raises(StoreInUse, match=r"process 1 on elsewhere: .*after 60 minutes, or when writer.json is deleted"):
        make_store(url)
    note(process=1, host="elsewhere", at=time.time() - 7200)
    assert make_store(url).complete


# A full disk ----------------------------------------------------------------------------------------------------------


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    folder.mkdir()
    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("mounting a small disk takes root")
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True
    ).returncode:
        pytest.skip("no small disk can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_too_small(make_store: Make, tmp_path: Path) -> None:
    whole = make_store(tmp_path / "whole")
    with small_disk(tmp_path / "disk", "176k") as disk:
        with pytest.raises(
            NoSpace, match=r"no space left for .*: \d+ rows are safe; make room, and the same call goes"
        ):
            make_store(disk / "s")
        store = op.open(disk / "s")
        assert 0 < len(store) < 700 and store.verify() == []
        assert not [name for name in os.listdir(disk / "s") if name.endswith(".partial")]
        subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
        assert make_store(disk / "s").hash == whole.hash
        assert files(disk / "s") == files(tmp_path / "whole")


@pytest.mark.parametrize("call", ["posix_fallocate", "pwrite", "fdatasync", "fsync"])
@pytest.mark.parametrize("after", [0, 1, 5])
def test_a_disk_that_fills_up_at_any_step(
    make_store: Make, monkeypatch: pytest.MonkeyPatch, call: str, after: int, tmp_path: Path
) -> None:
    whole, plain, done = make_store(tmp_path / "whole"), getattr(os, call), [0]

    def full(file: int, *arguments: Any) -> Any:
        # Flushing a folder is not writing to it.
        done[0] += 1
        if done[0] > 3 + after and not os.path.isdir(f"/proc/self/fd/{file}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return plain(file, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(NoSpace, match=r"no space left for .* rows are safe"):
            make_store(tmp_path / "s")
    assert not [name for name in os.listdir(tmp_path / "s") if name.endswith(".partial")]
    assert op.open(tmp_path / "s").verify() == []
    assert make_store(tmp_path / "s").hash == whole.hash
