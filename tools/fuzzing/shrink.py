"""Findings made small, and kept on disk so that they can be read again."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .campaign import FORK
from .trees import Tree, size, write
from .worker import Bench, Outcome, made

# A finding is made smaller for so long at most.
_SECONDS = 20.0


def keep(out: Path, box: Path, make: Callable[[Path], Bench], first: Outcome, often: int) -> Path:
    """Write the smallest input that has the same cause: `case/`, and `about.json` with what happened."""
    folder = out / f"{first.kind}-{first.number}-{re.sub('[^A-Za-z0-9.]+', '-', first.signature)[:60].strip('-')}"
    near, far = FORK.Pipe()
    process = FORK.Process(target=_work, args=(make, box, first, far), daemon=True)
    process.start()
    far.close()
    tree: Tree | None = None
    outcome = first
    try:
        # What comes before the process dies, or is stopped, counts.
        while near.poll(4 * _SECONDS + 60):
            tree, outcome = near.recv()
    except EOFError:
        pass
    process.kill()
    process.join()
    about = {
        "kind": first.kind, "number": first.number, "often": often, "signature": first.signature,
        "bytes": None if tree is None else size(tree), "detail": outcome.detail,
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    if tree is not None:
        write(tree, folder / "case")
    (folder / "about.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return folder


def _work(make: Callable[[Path], Bench], box: Path, first: Outcome, pipe: Any) -> None:
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    bench = make(box)
    kind = bench.kinds[first.kind]
    tree = made(kind, first.number, bench.seed, bench.seeds[kind.name])
    pipe.send((tree, first))
    until = time.monotonic() + _SECONDS
    smaller = True
    while smaller and time.monotonic() < until:
        smaller = False
        for other in _smaller(tree):
            if time.monotonic() > until:
                break
            outcome = bench.judge(kind, first.number, other)
            if outcome.verdict == "finding" and outcome.signature == first.signature:
                tree, smaller = other, True
                pipe.send((tree, outcome))
                break
    pipe.close()


def _smaller(tree: Tree) -> Iterator[Tree]:
    """The input without one of its files, and with a part of a file left out."""
    for name in tree:
        if len(tree) > 1:
            yield {other: thing for other, thing in tree.items() if other != name}
    for name, thing in tree.items():
        if isinstance(thing, bytes):
            length = len(thing)
            part = length // 2
            while part >= max(1, length // 64):
                for start in range(0, length, part):
                    yield {**tree, name: thing[:start] + thing[start + part :]}
                part //= 2
