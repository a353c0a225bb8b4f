"""Small helpers on files: content hashes, made-once targets."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from optrode.home import home


def sha256_of(path: Path) -> str:
    """The sha256 of a file as 64 hex digits; remembered while size and time of change stay the same.

    Cost: one pass over the file, roughly a quarter of a second for 100 MB.
    """
    status = path.stat()
    return _sha256(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=64)
def _sha256(path: Path, size: int, changed: int) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def made_once(target: Path, make: Callable[[Path], None]) -> Path:
    """`target`, after `make(target)` if it was not there; of several processes only one does the work.

    `make` has to write the target whole or not at all.
    """
    if target.exists():
        return target
    from filelock import FileLock

    locks = home() / "locks"
    locks.mkdir(exist_ok=True)
    with FileLock(locks / f"{target.parent.name}-{target.name}.lock"):
        if not target.exists():
            make(target)
    return target
