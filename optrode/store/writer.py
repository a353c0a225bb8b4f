"""Checksums and writing, in a thread beside the forwards.

What a site brought in one forward (a block) is summed and written while the forward goes on, so that at the end of a
shard there is little left to wait for. The checksum is CRC-32, since it is in Python's standard library and several
times as fast as the hashes there; a content hash is SHA-256 over the checksums.
"""

from __future__ import annotations

import queue
import threading
import zlib
from collections.abc import Callable
from typing import TypeVar

from .landing import Landing, ShardBuffer
from .layout import SCALE
from .storage import Aside

Result = TypeVar("Result")


class Abandoned(Exception):
    """Stands in the place of a problem while a shard is being left."""


class ShardWriter:
    """The thread that writes a harvest's shards, one after the other. A context manager: leaving it ends the thread."""

    def __init__(self) -> None:
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._problem: BaseException | None = None
        self._idle = threading.Condition()
        self._waiting = 0
        self._thread = threading.Thread(target=self._work, name="optrode-store-writer", daemon=True)

    def __enter__(self) -> ShardWriter:
        self._thread.start()
        return self

    def __exit__(self, *problem: object) -> None:
        self._tasks.put(None)
        self._thread.join()

    def begin(self, buffer: ShardBuffer, aside: Aside, start: int, blocks: int) -> None:
        """Start a shard whose data part begins at byte `start` of its file."""
        self._buffer, self._aside, self._start = buffer, aside, start
        self.checksums: dict[str, list[str]] = {site: [""] * blocks for site in buffer.sites}
        self.scales: dict[str, str] = {}

    def block(self, site: str, landing: Landing) -> None:
        """Have what one site brought in one forward written."""
        self._do(lambda: self._write_block(site, landing))

    def flush(self) -> None:
        self._do(self._aside.flush)

    def compute(self, task: Callable[[], Result]) -> Callable[[], Result]:
        """Have something computed beside the forwards; the function that is returned gives it after `finish`."""
        found: list[Result] = []
        self._do(lambda: found.append(task()))
        return lambda: found[0]

    def finish(self) -> None:
        """Have the scales written, and wait until everything is. Raises what went wrong in the thread."""
        for site in self._buffer.sites:
            if site + SCALE in self._buffer.tensors:
                self._do(lambda name=site + SCALE: self._write_scales(name))  # type: ignore[misc]
        self.wait()

    def wait(self) -> None:
        with self._idle:
            self._idle.wait_for(lambda: self._waiting == 0)
        self.check()

    def abandon(self) -> None:
        """Leave the shard: what is waiting to be written is dropped."""
        if self._problem is None:
            self._problem = Abandoned()
        with self._idle:
            self._idle.wait_for(lambda: self._waiting == 0)
        self._problem = None

    def check(self) -> None:
        """Raise what went wrong in the thread, once."""
        if self._problem is not None:
            problem, self._problem = self._problem, None
            raise problem

    def _do(self, task: Callable[[], None]) -> None:
        self.check()
        with self._idle:
            self._waiting += 1
        self._tasks.put(task)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                # After a failure what is left of the shard has no place to go.
                if self._problem is None:
                    task()
            except BaseException as problem:
                self._problem = problem
            finally:
                with self._idle:
                    self._waiting -= 1
                    self._idle.notify_all()

    def _write_block(self, site: str, landing: Landing) -> None:
        checksum = 0
        for first, stop in landing.rows:
            data = self._buffer.bytes_of(site, first, stop)
            checksum = zlib.crc32(data, checksum)
            self._aside.write_at(self._start + self._buffer.offset_of(site, first), data)
        self.checksums[site][landing.block] = f"{checksum:08x}"

    def _write_scales(self, name: str) -> None:
        data = self._buffer.bytes_of(name, 0, len(self._buffer.tensors[name]))
        self._aside.write_at(self._start + self._buffer.offset_of(name, 0), data)
        self.scales[name.removesuffix(SCALE)] = f"{zlib.crc32(data):08x}"
