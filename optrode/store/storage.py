"""Where a store's files are: a local folder or any file system of fsspec. Every file is whole or absent.

Locally a file is written aside, flushed to the disk and renamed. Object storage does that by itself: an object appears
when all of it has arrived.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BadFile, MissingFile, NoSpace
from .lock import LocalLock, RemoteLock

if TYPE_CHECKING:
    from torch import Tensor

PARTIAL = ".partial"
# What the system says of files that are there and cannot be read.
_UNREADABLE = (errno.EIO, errno.EISDIR, errno.EACCES, errno.EPERM, errno.EINVAL, errno.ELOOP)
Bytes = bytes | bytearray | memoryview


class Aside:
    """A file that is being written at any places and that nobody sees before `commit`."""

    def write_at(self, offset: int, data: Bytes) -> None:
        raise NotImplementedError

    def flush(self) -> None:
        """Push what was written to the disk, so that `commit` has less to wait for."""

    def commit(self) -> None:
        raise NotImplementedError

    def discard(self) -> None:
        """Leave nothing behind; does nothing after `commit`."""
        raise NotImplementedError


class Storage:
    """A folder of whole files. `where` is what the user wrote."""

    where: str

    def names(self) -> set[str]:
        raise NotImplementedError

    def read(self, name: str) -> bytes:
        raise NotImplementedError

    def ranges(self, name: str, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """Bytes [start, stop) of a file, for each span."""
        raise NotImplementedError

    def mapped(self, name: str) -> Tensor | None:
        """The bytes of the file, mapped into memory and private to this process; None where that cannot be."""
        return None

    def size(self, name: str) -> int:
        raise NotImplementedError

    def write(self, name: str, data: Bytes) -> None:
        """Write a whole file. Raises `NoSpace`."""
        aside = self.create(name, len(data))
        try:
            aside.write_at(0, data)
            aside.commit()
        except BaseException:
            aside.discard()
            raise

    def create(self, name: str, size: int) -> Aside:
        """A file of `size` bytes to be written. Raises `NoSpace` before anything is written where that is known."""
        raise NotImplementedError

    def remove(self, name: str) -> None:
        raise NotImplementedError

    def sweep(self) -> None:
        """Remove what a killed writer left aside. Only for the one who holds the lock."""

    def settle(self) -> None:
        """Make sure that names of files that were written survive a loss of power."""

    def free(self) -> int | None:
        """Bytes that are free, where that is known."""
        return None

    def lock(self) -> AbstractContextManager[Any]:
        """The right to write, for one at a time. Raises `StoreInUse`."""
        raise NotImplementedError


@contextmanager
def room(where: str) -> Iterator[None]:
    """Turns a full disk into `NoSpace`."""
    try:
        yield
    except OSError as problem:
        if problem.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(f"there is no space left for '{where}'") from problem
        raise


class LocalFolder(Storage):
    def __init__(self, where: str, path: Path):
        self.where, self.path = where, path

    def names(self) -> set[str]:
        return {entry.name for entry in os.scandir(self.path)} if self.path.is_dir() else set()

    def read(self, name: str) -> bytes:
        with _found(self.where, name):
            return self._file(name).read_bytes()

    def ranges(self, name: str, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        with _found(self.where, name), open(self._file(name), "rb") as file:
            return [os.pread(file.fileno(), stop - start, start) for start, stop in spans]

    def mapped(self, name: str) -> Tensor:
        import torch

        size = self.size(name)
        # Unlike Python's own maps this one holds no file open, of which a store may have thousands.
        return torch.from_file(str(self.path / name), shared=False, size=size, dtype=torch.uint8)

    def size(self, name: str) -> int:
        with _found(self.where, name):
            return self._file(name).stat().st_size

    def _file(self, name: str) -> Path:
        """The path of a file. Raises `BadFile` for folders, pipes and devices: reading one may never end."""
        path = self.path / name
        if not path.is_file() and os.path.lexists(path):
            raise BadFile(f"'{name}' of '{self.where}' is no file: run optrode store verify")
        return path

    def create(self, name: str, size: int) -> Aside:
        with room(self.where):
            self.path.mkdir(parents=True, exist_ok=True)
        return _LocalAside(self, name, size)

    def remove(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def sweep(self) -> None:
        for name in self.names():
            if name.endswith(PARTIAL):
                self.remove(name)

    def settle(self) -> None:
        with suppress(OSError):  # Not every file system lets a folder be flushed.
            folder = os.open(self.path, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def free(self) -> int:
        there = next(folder for folder in (self.path, *self.path.absolute().parents) if folder.exists())
        return shutil.disk_usage(there).free

    def lock(self) -> AbstractContextManager[Any]:
        return LocalLock(self.where, self.path)


class _LocalAside(Aside):
    def __init__(self, folder: LocalFolder, name: str, size: int):
        self._folder, self._name = folder, name
        self._path = folder.path / f".{name}{PARTIAL}"
        self._file: int | None = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            with room(folder.where):
                if size and hasattr(os, "posix_fallocate"):
                    # A full disk is found now and not in the middle.
                    os.posix_fallocate(self._file, 0, size)
        except BaseException:
            self.discard()
            raise

    def write_at(self, offset: int, data: Bytes) -> None:
        assert self._file is not None
        left = memoryview(data)
        with room(self._folder.where):
            while left:
                done = os.pwrite(self._file, left, offset)
                offset, left = offset + done, left[done:]

    def flush(self) -> None:
        assert self._file is not None
        with room(self._folder.where):
            getattr(os, "fdatasync", os.fsync)(self._file)

    def commit(self) -> None:
        assert self._file is not None
        with room(self._folder.where):
            os.fsync(self._file)
            os.close(self._file)
            self._file = None
            os.replace(self._path, self._folder.path / self._name)

    def discard(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
        self._path.unlink(missing_ok=True)


class Remote(Storage):
    """A folder on a file system of fsspec."""

    def __init__(self, where: str, system: Any, root: str):
        self.where, self.system, self.root = where, system, root.rstrip("/")

    def names(self) -> set[str]:
        self.system.invalidate_cache()
        try:
            return {path.rstrip("/").rpartition("/")[2] for path in self.system.ls(self.root, detail=False)}
        except FileNotFoundError:
            return set()

    def read(self, name: str) -> bytes:
        with _found(self.where, name):
            return self.system.cat_file(f"{self.root}/{name}")

    def ranges(self, name: str, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        starts, stops = [start for start, _ in spans], [stop for _, stop in spans]
        with _found(self.where, name):
            return self.system.cat_ranges([f"{self.root}/{name}"] * len(spans), starts, stops, on_error="raise")

    def size(self, name: str) -> int:
        with _found(self.where, name):
            return self.system.size(f"{self.root}/{name}")

    def create(self, name: str, size: int) -> Aside:
        return _RemoteAside(self, name, size)

    def remove(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self.system.rm_file(f"{self.root}/{name}")

    def lock(self) -> AbstractContextManager[Any]:
        return RemoteLock(self)


class _RemoteAside(Aside):
    def __init__(self, folder: Remote, name: str, size: int):
        self._folder, self._name, self._data = folder, name, bytearray(size)

    def write_at(self, offset: int, data: Bytes) -> None:
        self._data[offset : offset + memoryview(data).nbytes] = data

    def commit(self) -> None:
        system, root = self._folder.system, self._folder.root
        with room(self._folder.where):
            system.makedirs(root, exist_ok=True)
            system.pipe_file(f"{root}/{self._name}", bytes(self._data))

    def discard(self) -> None:
        self._data = bytearray()


@contextmanager
def _found(where: str, name: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as problem:
        raise MissingFile(f"'{where}' has no file '{name}': run optrode store verify") from problem
    except OSError as problem:
        if problem.errno not in _UNREADABLE:
            raise
        raise BadFile(f"'{name}' of '{where}' cannot be read ({os.strerror(problem.errno)})") from problem


def storage_at(where: str | os.PathLike[str]) -> Storage:
    """The storage that a path or an fsspec URL names; nothing is made or read yet."""
    from fsspec.core import url_to_fs
    from fsspec.implementations.local import LocalFileSystem

    text = os.fspath(where)
    if "://" not in text:
        return LocalFolder(text, Path(text).expanduser())
    system, root = url_to_fs(text)
    return LocalFolder(text, Path(root)) if isinstance(system, LocalFileSystem) else Remote(text, system, root)
