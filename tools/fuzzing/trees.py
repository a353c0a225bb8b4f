"""An input as it lies on a disk: files by their path in a folder, and things that are no files."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias


@dataclass(frozen=True)
class Link:
    """A symbolic link."""

    target: str


@dataclass(frozen=True)
class Pipe:
    """A named pipe, which nobody ever writes to."""


@dataclass(frozen=True)
class Folder:
    """An empty folder where a file should be."""


Thing: TypeAlias = bytes | Link | Pipe | Folder
Tree: TypeAlias = dict[str, Thing]


def load(folder: Path) -> Tree:
    """All files of a folder."""
    return {
        path.relative_to(folder).as_posix(): Link(os.readlink(path)) if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def write(tree: Tree, folder: Path) -> None:
    """Put an input into a folder that is empty afterwards but for it."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    for name, thing in tree.items():
        path = folder / name
        if "/" in name:
            path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(thing, bytes):
            path.write_bytes(thing)
        elif isinstance(thing, Link):
            path.symlink_to(thing.target)
        elif isinstance(thing, Pipe):
            os.mkfifo(path)
        else:
            path.mkdir()


def size(tree: Tree) -> int:
    """Bytes of all files."""
    return sum(len(thing) for thing in tree.values() if isinstance(thing, bytes))
