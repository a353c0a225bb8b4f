"""Where optrode keeps what it fetches and converts: the folder that the environment variable OPTRODE_HOME names.

Everything is written aside and renamed into place, so that a killed run never leaves half a file behind.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import BadInput


def home() -> Path:
    """The cache folder, made if absent: `$OPTRODE_HOME`, else the user's cache folder of the operating system."""
    named = os.environ.get("OPTRODE_HOME")
    if named:
        folder = Path(named).expanduser()
    else:
        from platformdirs import user_cache_path

        folder = user_cache_path("optrode")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """A path to write to; it becomes `target` when the block ends well and vanishes when it does not.

    The block may write a file or make a folder at the path it is given. Replaces what is there,
    but never a folder by a file or a file by a folder (`BadInput`).

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with written_whole(folder / "a.txt") as aside:
    ...     _ = aside.write_text("whole")
    >>> (folder / "a.txt").read_text()
    'whole'
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        box = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as problem:
        # The caller knows the file by the name that it gave, not by ours.
        raise OSError(problem.errno, problem.strerror, str(target)) from None
    aside = box / target.name
    try:
        yield aside
        if aside.is_file():
            # Some writers make private files; a result is as readable as any other file of the user's.
            aside.chmod(0o644)
            with open(aside, "rb") as file:
                os.fsync(file.fileno())
        if target.exists() and target.is_dir() != aside.is_dir():
            kind = "folder" if target.is_dir() else "file"
            raise BadInput(f"'{target}' is a {kind} already: choose another name")
        if target.is_dir():
            shutil.rmtree(target)
        os.replace(aside, target)
    finally:
        shutil.rmtree(box, ignore_errors=True)
