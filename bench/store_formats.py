"""Array formats for a store of activations: writing, shuffled reading, opening, size, and requests.

Run in an environment of its own: `pip install numpy zarr zarrs pylance safetensors pyarrow fsspec`, then
`python bench/store_formats.py --sample FILE.npy`, where FILE holds real activations, float16 [row, site, width].
Without it heavy-tailed noise is used, which compresses a little worse. Writes bench/results/store_formats.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SITES, WIDTH, SHARD, SHARDS = 30, 576, 4096, 8
BATCH, BATCHES = 4096, 8
NAMES = [f"layers.{layer}.out" for layer in range(SITES)]
RESULT = Path(__file__).parent / "results" / "store_formats.json"
Shard = dict[str, np.ndarray]


def synthetic(rows: int) -> np.ndarray:
    random = np.random.default_rng(0)
    scale = random.lognormal(0, 1, (SITES, WIDTH))
    return (random.standard_t(4, (rows, SITES, WIDTH)) * scale).astype(np.float16)


def shard(sample: np.ndarray, number: int) -> Shard:
    """One shard of rows drawn from the sample, so that no two shards are equal."""
    rows = np.random.default_rng(number).integers(0, len(sample), SHARD)
    return {name: np.ascontiguousarray(sample[rows, site]) for site, name in enumerate(NAMES)}


# Formats: each writes shards one after the other, opens what was written, and reads rows of one site -----------------


class Format:
    name = ""

    def __init__(self, folder: Path):
        self.folder = folder

    def write(self, number: int, data: Shard) -> None:
        raise NotImplementedError

    def open(self) -> None:
        """After this, `rows` can be asked."""
        raise NotImplementedError

    def rows(self, site: str, index: np.ndarray) -> np.ndarray:
        raise NotImplementedError


class PlainMap(Format):
    """One file per site for all shards: the bound that nothing reads faster than. It cannot be written in shards."""

    name = "plain memory map"

    def write(self, number: int, data: Shard) -> None:
        for site, values in data.items():
            with open(self.folder / f"{site}.bin", "ab") as file:
                file.write(values.data)

    def open(self) -> None:
        shape = (SHARD * SHARDS, WIDTH)
        self.maps = {site: np.memmap(self.folder / f"{site}.bin", np.float16, "r", shape=shape) for site in NAMES}

    def rows(self, site: str, index: np.ndarray) -> np.ndarray:
        return self.maps[site][index]


class Sharded(Format):
    """Files that are mapped one by one; what they share is how rows are gathered over shards."""

    def gather(self, parts: list[np.ndarray], index: np.ndarray) -> np.ndarray:
        out = np.empty((len(index), WIDTH), np.float16)
        owner = index // SHARD
        for number in np.unique(owner):
            here = np.flatnonzero(owner == number)
            out[here] = parts[number][index[here] - number * SHARD]
        return out


class Safetensors(Sharded):
    name = "safetensors shards"

    def write(self, number: int, data: Shard) -> None:
        from safetensors.numpy import save_file

        save_file(data, self.folder / f"{number:05}.safetensors")

    def open(self) -> None:
        self.parts: dict[str, list[np.ndarray]] = {site: [] for site in NAMES}
        for path in sorted(self.folder.iterdir()):
            mapped = np.memmap(path, np.uint8, "r")
            length = int(mapped[:8].view("<u8")[0])
            header = json.loads(mapped[8 : 8 + length].tobytes())
            for site in NAMES:
                start, stop = header[site]["data_offsets"]
                values = mapped[8 + length + start : 8 + length + stop].view(np.float16)
                self.parts[site].append(values.reshape(-1, WIDTH))

    def rows(self, site: str, index: np.ndarray) -> np.ndarray:
        return self.gather(self.parts[site], index)


class Numpy(Sharded):
    name = ".npy per shard and site"

    def write(self, number: int, data: Shard) -> None:
        for site, values in data.items():
            np.save(self.folder / f"{number:05}.{site}.npy", values)

    def open(self) -> None:
        self.parts = {
            site: [np.load(self.folder / f"{number:05}.{site}.npy", mmap_mode="r") for number in range(SHARDS)]
            for site in NAMES
        }

    def rows(self, site: str, index: np.ndarray) -> np.ndarray:
        return self.gather(self.parts[site], index)


class Arrow(Sharded):
    name = "Arrow IPC shards"

    def write(self, number: int, data: Shard) -> None:
        import pyarrow as pa

        columns = [pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), WIDTH) for values in data.values()]
        table = pa.table(dict(zip(data, columns, strict=True)))
        with (
            pa.OSFile(str(self.folder / f"{number:05}.arrow"), "wb") as sink,
            pa.ipc.new_file(sink, table.schema) as out,
        ):
            out.write_table(table)

    def open(self) -> None:
        import pyarrow as pa

        self.parts = {site: [] for site in NAMES}
        for path in sorted(self.folder.iterdir()):
            table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
            for site in NAMES:
                column = table[site].chunk(0)
                self.parts[site].append(column.values.to_numpy().reshape(-1, WIDTH))

    def rows(self, site: str, index: np.ndarray) -> np.ndarray:
        return self.gather(self.parts[site], index)


class Zarr(Format):
    """Zarr v3: one array per site, a Zarr shard per shard, `CHUNK` rows a chunk."""

    name = "Zarr v3, chunks of 256 rows"
    pipeline = "zarr.core.codec_pipeline.BatchedCodecPipeline"
    chunk, compressed = 256, False

    def _zarr(self) -> Any:
        import zarr

        if "zarrs" in self.pipeline:
            import zarrs  # noqa: F401
        zarr.config.set({"codec_pipeline.path": self.pipeline})
        return zarr

    def write(self, number: int, data: Shard) -> None:
        zarr = self._zarr()
        if number == 0:
            group = zarr.open_group(self.folder / "z", mode="w")
            for site in data:
                group.create_array(
                    site, shape=(SHARD * SHARDS, WIDTH), dtype="float16", chunks=(self.chunk, WIDTH),
                    shards=(SHARD, WIDTH), compressors="auto" if self.compressed else None,
                )  # fmt: skip
        group = zarr.open_group(self.folder / "z", mode="a")
        for site, values in data.items():
            group[site][number * SHARD : (number + 1) * SHARD] = values

    def open(self) -> None:
        group = self._zarr().open_group(self.folder / "z", mode="r")
        self.arrays = {site: group[site] for site in NAMES}

    def rows(self, site: str, index: np.ndarray) -> np.ndarray:
        return self.arrays[site].oindex[index]


class ZarrRow(Zarr):
    name = "Zarr v3, chunks of 16 rows"
    chunk = 16


class ZarrZstd(Zarr):
    name = "Zarr v3, chunks of 256 rows, zstd"
    compressed = True


class Zarrs(Zarr):
    name = "Zarr v3 with zarrs, chunks of 256 rows"
    pipeline = "zarrs.ZarrsCodecPipeline"

    def rows(self, site: str, index: np.ndarray) -> np.ndarray:
        # The Rust pipeline takes slices only: it reads the chunks that the rows are in.
        array, out = self.arrays[site], np.empty((len(index), WIDTH), np.float16)
        owner = index // self.chunk
        for number in np.unique(owner):
            here = np.flatnonzero(owner == number)
            out[here] = array[number * self.chunk : (number + 1) * self.chunk][index[here] - number * self.chunk]
        return out


class Lance(Format):
    name = "Lance"

    def write(self, number: int, data: Shard) -> None:
        import lance
        import pyarrow as pa

        columns = [pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), WIDTH) for values in data.values()]
        # A dot in a column's name means a field within a struct there.
        names = [site.replace(".", "_") for site in data]
        lance.write_dataset(
            pa.table(dict(zip(names, columns, strict=True))), self.folder / "l", mode="append" if number else "create"
        )

    def open(self) -> None:
        import lance

        self.data = lance.dataset(self.folder / "l")
        self.data.count_rows()

    def rows(self, site: str, index: np.ndarray) -> np.ndarray:
        column = self.data.take(index, columns=[site.replace(".", "_")]).column(0).combine_chunks()
        return column.values.to_numpy().reshape(-1, WIDTH)


FORMATS: list[type[Format]] = [PlainMap, Safetensors, Numpy, Arrow, Zarr, ZarrRow, ZarrZstd, Zarrs, Lance]


# Measuring ---------------------------------------------------------------------------------------------------------


def written(kind: type[Format], folder: Path, sample: np.ndarray) -> float:
    """Seconds to write all shards and to have them on the disk."""
    folder.mkdir()
    format_, seconds = kind(folder), 0.0
    for number in range(SHARDS):
        data = shard(sample, number)
        start = time.perf_counter()
        format_.write(number, data)
        seconds += time.perf_counter() - start
    start = time.perf_counter()
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
    return seconds + time.perf_counter() - start


def shuffled(kind: type[Format], folder: Path) -> float:
    """Seconds a batch: rows of one site in a random order over the whole store, files in the page cache."""
    format_ = kind(folder)
    format_.open()
    order = np.random.default_rng(1).permutation(SHARD * SHARDS)
    format_.rows(NAMES[7], order[:64])
    start = time.perf_counter()
    for number in range(BATCHES):
        format_.rows(NAMES[7], order[number * BATCH : (number + 1) * BATCH])
    return (time.perf_counter() - start) / BATCHES


def ranged(kind: type[Format], folder: Path) -> float:
    """Seconds for one site from the first row to the last."""
    format_ = kind(folder)
    format_.open()
    start = time.perf_counter()
    for number in range(SHARDS):
        format_.rows(NAMES[8], np.arange(number * SHARD, (number + 1) * SHARD))
    return time.perf_counter() - start


def reopened(kind: type[Format], folder: Path) -> float:
    """Seconds to the first row in a new process, its imports of the format included, those of numpy not."""
    code = (
        "import sys, time, numpy as np\nsys.path.insert(0, sys.argv[1])\nimport store_formats as s\n"
        "from pathlib import Path\nstart = time.perf_counter()\n"
        f"f = s.{kind.__name__}(Path(sys.argv[2]))\nf.open()\nf.rows(s.NAMES[3], np.arange(1))\n"
        "print(time.perf_counter() - start)"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parent), str(folder)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def right(kind: type[Format], folder: Path, sample: np.ndarray) -> None:
    """What is read is what was written, before anything is timed."""
    format_, number = kind(folder), 3
    format_.open()
    index = np.array([number * SHARD + 5, number * SHARD + 4000])
    expected = shard(sample, number)[NAMES[9]][[5, 4000]]
    if not np.array_equal(format_.rows(NAMES[9], index).view(np.uint16), expected.view(np.uint16)):
        raise SystemExit(f"{kind.name} gives other rows than were written")


def files(folder: Path) -> tuple[int, int]:
    """Number of files, which are objects in object storage, and their bytes."""
    found = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return len(found), sum(found)


def measure(sample: np.ndarray, rounds: int, box: Path) -> dict[str, Any]:
    times: dict[str, dict[str, list[float]]] = {kind.name: {} for kind in FORMATS}
    sizes: dict[str, tuple[int, int]] = {}

    def note(kind: type[Format], what: str, seconds: float) -> None:
        times[kind.name].setdefault(what, []).append(seconds)

    for number in range(rounds):
        turn = number % len(FORMATS)
        for kind in FORMATS[turn:] + FORMATS[:turn]:
            folder = box / kind.__name__
            shutil.rmtree(folder, ignore_errors=True)
            note(kind, "write", written(kind, folder, sample))
            right(kind, folder, sample)
            sizes[kind.name] = files(folder)
            tasks: list[tuple[str, Callable[[type[Format], Path], float]]] = [
                ("shuffled", shuffled), ("range", ranged), ("reopen", reopened),
            ]  # fmt: skip
            for what, task in tasks:
                note(kind, what, task(kind, folder))
            print(
                f"round {number + 1}: {kind.name}",
                {k: round(v[-1], 4) for k, v in times[kind.name].items()},
                flush=True,
            )
            shutil.rmtree(folder)
    return {name: _row(found, *sizes[name]) for name, found in times.items()}


def _row(found: dict[str, list[float]], count: int, size: int) -> dict[str, Any]:
    raw = SITES * WIDTH * 2 * SHARD * SHARDS
    middle = {what: statistics.median(seconds) for what, seconds in found.items()}
    return {
        "write_mb_s": round(raw / middle["write"] / 1e6),
        "shuffled_mb_s": round(BATCH * WIDTH * 2 / middle["shuffled"] / 1e6),
        "range_mb_s": round(raw / SITES / middle["range"] / 1e6),
        "reopen_ms": round(middle["reopen"] * 1e3, 1),
        "size_ratio": round(size / raw, 4),
        "files": count,
        "seconds": {what: [round(value, 5) for value in seconds] for what, seconds in found.items()},
    }


# Requests to object storage, counted on a file system in memory ------------------------------------------------------


def requests(sample: np.ndarray) -> dict[str, dict[str, int]]:
    """Reads of objects (any range) for: open and read 512 rows in a row; 64 scattered rows of one site. By format."""
    import fsspec
    from fsspec.implementations.memory import MemoryFileSystem

    calls, plain = [0], MemoryFileSystem.cat_file

    def counted(*arguments: Any, **options: Any) -> bytes:
        calls[0] += 1
        return plain(*arguments, **options)

    MemoryFileSystem.cat_file = counted  # type: ignore[method-assign]
    memory = fsspec.filesystem("memory")
    scattered = np.sort(np.random.default_rng(2).permutation(SHARD * SHARDS)[:64])
    found = {"safetensors shards": _requests_of_ranges(memory, calls, sample, scattered)}
    for kind in (Zarr, ZarrRow):
        found[kind.name] = _requests_of_zarr(kind, calls, sample, scattered)
    with tempfile.TemporaryDirectory() as box:
        found[Lance.name] = _requests_of_lance(Path(box), sample, scattered)
    return found


def _requests_of_lance(box: Path, sample: np.ndarray, scattered: np.ndarray) -> dict[str, int]:
    """Lance counts its own reads; its file system is not one of fsspec."""
    import lance

    format_, found = Lance(box), {}
    for number in range(SHARDS):
        format_.write(number, shard(sample, number))
    format_.data = lance.dataset(box / "l", session=lance.Session())
    format_.data.count_rows()
    for what, index in (("open", None), ("range_512", np.arange(512)), ("scattered_64", scattered)):
        if index is not None:
            format_.rows(NAMES[3], index)
        found[what] = int(format_.data.io_stats_incremental().read_iops)
    return found


def _requests_of_ranges(memory: Any, calls: list[int], sample: np.ndarray, scattered: np.ndarray) -> dict[str, int]:
    """Headers are read once per shard; each run of rows is one range."""
    from safetensors.numpy import save

    for number in range(SHARDS):
        memory.pipe_file(f"/s/{number:05}", save(shard(sample, number)))
    starts, calls[0] = {}, 0
    for number in range(SHARDS):
        length = int.from_bytes(memory.cat_file(f"/s/{number:05}", start=0, end=8), "little")
        starts[number] = (
            8
            + length
            + json.loads(memory.cat_file(f"/s/{number:05}", start=8, end=8 + length))[NAMES[3]]["data_offsets"][0]
        )
    opened, row = calls[0], WIDTH * 2
    memory.cat_file("/s/00000", start=starts[0], end=starts[0] + 512 * row)
    ranged = calls[0] - opened
    for index in scattered.tolist():
        start = starts[index // SHARD] + index % SHARD * row
        memory.cat_file(f"/s/{index // SHARD:05}", start=start, end=start + row)
    return {"open": opened, "range_512": ranged, "scattered_64": calls[0] - opened - ranged}


def _requests_of_zarr(kind: type[Zarr], calls: list[int], sample: np.ndarray, scattered: np.ndarray) -> dict[str, int]:
    import zarr
    from zarr.storage import FsspecStore

    zarr.config.set({"codec_pipeline.path": kind.pipeline})

    def arrays(mode: str) -> Any:
        return zarr.open_group(FsspecStore.from_url(f"memory://{kind.__name__}"), mode=mode)

    group = arrays("w")
    for site in NAMES[:4]:
        array = group.create_array(
            site, shape=(SHARD * SHARDS, WIDTH), dtype="float16", chunks=(kind.chunk, WIDTH), shards=(SHARD, WIDTH),
            compressors=None,
        )  # fmt: skip
        for number in range(SHARDS if site == NAMES[3] else 0):
            array[number * SHARD : (number + 1) * SHARD] = shard(sample, number)[site]
    calls[0] = 0
    array = arrays("r")[NAMES[3]]
    opened = calls[0]
    array[:512]
    ranged = calls[0] - opened
    array.oindex[scattered]
    return {"open": opened, "range_512": ranged, "scattered_64": calls[0] - opened - ranged}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", help="real activations, float16 .npy of [row, site, width]")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    sample = np.load(asked.sample) if asked.sample else synthetic(1024)
    with tempfile.TemporaryDirectory() as box:
        rows = measure(sample, asked.rounds, Path(box))
    result = {
        "what": f"float16, {SITES} sites, width {WIDTH}, {SHARDS} shards of {SHARD} rows; batches of {BATCH} rows",
        "sample": "activations of smollm2-135m" if asked.sample else "synthetic",
        "rounds": asked.rounds,
        "rows": rows,
        "requests": requests(sample),
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
