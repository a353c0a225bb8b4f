"""One writer at a time. Who holds a store is written into it, so that a second writer can be told."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import StoreInUse

if TYPE_CHECKING:
    from .storage import Remote

LOCK = "writer.lock"
OWNER = "writer.json"
# Object storage has no locks that end with their process, so a sign of life is renewed with every shard.
SILENT_SECONDS = 3600.0


class LocalLock:
    """A lock of the operating system: it ends with its process, however that ends."""

    def __init__(self, where: str, folder: Path):
        from filelock import FileLock

        self._where, self._folder = where, folder
        self._lock = FileLock(folder / LOCK, timeout=0)

    def __enter__(self) -> LocalLock:
        from filelock import Timeout

        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout as problem:
            raise StoreInUse(_says(self._where, self._owner())) from problem
        (self._folder / OWNER).write_text(json.dumps(_me()))
        return self

    def renew(self) -> None:
        """Nothing to do: the operating system knows that the writer lives."""

    def __exit__(self, *problem: object) -> None:
        (self._folder / OWNER).unlink(missing_ok=True)
        self._lock.release()

    def _owner(self) -> dict[str, Any]:
        try:
            return json.loads((self._folder / OWNER).read_text())
        except (OSError, ValueError):
            return {}


class RemoteLock:
    """A note of the writer. Two that begin within the same second may miss each other: object storage has no locks."""

    def __init__(self, storage: Remote):
        self._storage = storage

    def __enter__(self) -> RemoteLock:
        owner = self._owner()
        if owner and not _gone(owner):
            raise StoreInUse(
                f"{_says(self._storage.where, owner)}; a writer that was killed elsewhere counts as gone after "
                f"{SILENT_SECONDS / 60:.0f} minutes, or when {OWNER} is deleted"
            )
        self.renew()
        return self

    def renew(self) -> None:
        self._storage.write(OWNER, json.dumps(_me()).encode())

    def __exit__(self, *problem: object) -> None:
        self._storage.remove(OWNER)

    def _owner(self) -> dict[str, Any]:
        if OWNER not in self._storage.names():
            return {}
        try:
            return json.loads(self._storage.read(OWNER))
        except ValueError:
            return {}


def _me() -> dict[str, Any]:
    return {"process": os.getpid(), "host": socket.gethostname(), "at": time.time()}


def _gone(owner: dict[str, Any]) -> bool:
    if time.time() - float(owner.get("at", 0)) > SILENT_SECONDS:
        return True
    return owner.get("host") == socket.gethostname() and not _lives(int(owner.get("process", 0)))


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _says(where: str, owner: dict[str, Any]) -> str:
    if not owner:
        return f"'{where}' is being written by another process: wait for it, or harvest into another folder"
    return (
        f"'{where}' is being written by process {owner.get('process')} on {owner.get('host')}: wait for it, or harvest "
        "into another folder"
    )
