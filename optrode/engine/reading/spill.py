"""Results that go to disk row by row as they are read, and come back as tensors mapped from there.

They lie in one nameless file: its space is given back when the last tensor of it is gone, even if the process is
killed, so that nothing is ever left behind and nothing half-written can be found.
"""

from __future__ import annotations

import errno
import mmap
import shutil
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from ...batches import Batch
from ...errors import NoSpace
from ...home import home
from .one_forward import Sinks
from .request import Request
from .results import Kept
from .rows import Rows, nothing

# Where the values of a site begin in the file.
_ALIGNED = 64


def spill_folder(given: str | Path | None) -> Path:
    """The folder for results that do not fit in memory: the one that was given, or one of the cache of optrode.

    The system's folder for temporary files is not taken: on many systems it lies in memory.
    """
    folder = Path(given).expanduser() if given is not None else home() / "spill"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def free_bytes(folder: Path) -> int:
    """Bytes that are free where a folder is."""
    return shutil.disk_usage(folder).free


class OnDisk:
    """One nameless file, and where each site and each row of it begins. Use it in a `with` block.

    Raises `NoSpace` when the disk is full. Tensors that were made before the block ends stay valid after it.
    """

    def __init__(self, batch: Batch, request: Request, kept: Sequence[Kept], folder: Path):
        self._rows = Rows(batch, request)
        self._kept = {found.site: found for found in kept}
        self._folder = folder
        self._starts: dict[str, int] = {}
        self.size = 0
        for found in kept:
            self._starts[found.site] = self.size
            self.size += -(-found.nbytes // _ALIGNED) * _ALIGNED

    def __enter__(self) -> OnDisk:
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=self._folder)
        self._file.truncate(self.size)
        return self

    def __exit__(self, *problem: object) -> None:
        self._file.close()

    def sinks(self, rows: Tensor) -> Sinks:
        first = self._rows.first_column(rows)
        return {site: partial(self._put, site, rows.tolist(), first) for site in self._kept}

    def _put(self, site: str, rows: list[int], first: int, value: Tensor, shape: torch.Size) -> None:
        found, value = self._kept[site], value.cpu()
        if found.axes[-1] == "key":
            value = _widened(value, first, found.shape[-1], nothing(site))
        done = 0
        for index, row in enumerate(rows):
            if site in self._rows.by_position:
                places = self._rows.positions(row)
                self._write(found, places.start, value[done : done + len(places)])
                done += len(places)
            elif found.axes[:2] == ("example", "token"):
                self._write(found, row, self._with_padding(found, value[index], first, site))
            else:
                self._write(found, row, value[index])

    def _with_padding(self, found: Kept, value: Tensor, first: int, site: str) -> Tensor:
        """One row in all columns of the batch, of which a forward has some."""
        if len(value) == found.shape[1]:
            return value
        whole = value.new_full((found.shape[1], *value.shape[1:]), nothing(site))
        whole[first : first + len(value)] = value
        return whole

    def _write(self, found: Kept, place: int, value: Tensor) -> None:
        """Write a block that begins at entry `place` of the first axis."""
        if not value.numel():
            return
        each = found.nbytes // max(1, found.shape[0])
        try:
            self._file.seek(self._starts[found.site] + place * each)
            self._file.write(value.contiguous().flatten().view(torch.uint8).numpy().data)
        except OSError as problem:
            if problem.errno != errno.ENOSPC:
                raise
            raise NoSpace("the disk is full: give spill= a folder that has more space, or read less") from problem

    def tensors(self) -> dict[str, Tensor]:
        """The results, mapped: pages come from disk as they are looked at; writing to one changes the file alone."""
        self._file.flush()
        mapped = mmap.mmap(self._file.fileno(), self.size) if self.size else None
        values = {}
        for site, found in self._kept.items():
            if mapped is None or not found.nbytes:
                values[site] = torch.empty(found.shape, dtype=found.dtype)
                continue
            count = found.nbytes // found.dtype.itemsize
            flat = torch.frombuffer(mapped, dtype=found.dtype, count=count, offset=self._starts[site])
            values[site] = flat.reshape(found.shape)
        return values


def _widened(value: Tensor, first: int, keys: int, fill: float) -> Tensor:
    """The value with all keys of the batch; those that a forward did not have are padding, which nobody looks at."""
    if value.shape[-1] == keys:
        return value
    whole = value.new_full((*value.shape[:-1], keys), fill)
    whole[..., first : first + value.shape[-1]] = value
    return whole
