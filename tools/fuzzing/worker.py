"""One input after the other: made, written, read under guard, judged."""

from __future__ import annotations

import gc
import os
import shutil
import time
import traceback
import unicodedata
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from optrode.errors import OptrodeError

from .guard import Guard, Peak, TooLong, limit_memory
from .kinds import Kind
from .mutate import BOMBS, mutated
from .trees import Tree, load, write

LONGEST_MESSAGE = 400


@dataclass(frozen=True)
class Limits:
    """What one read may take."""

    seconds: float = 5.0
    mebibytes: int = 1024


@dataclass(frozen=True)
class Outcome:
    """How one read ended: `read`, `refused` or `finding`. `signature` is equal for findings of one cause."""

    kind: str
    number: int
    verdict: str
    seconds: float
    peak: float
    signature: str = ""
    detail: str = ""


def made(kind: Kind, number: int, seed: int, seeds: list[Tree]) -> Tree:
    """Input `number` of a kind: the same for the same seed, whichever process makes it."""
    random = Random(f"{seed}/{kind.name}/{number}")
    return mutated(random, kind, random.choice(seeds))


class Bench:
    """Reads inputs in this process, which is given up to it: its hooks and limits stay."""

    def __init__(self, box: Path, corpus: Path, kinds: dict[str, Kind], seed: int, limits: Limits):
        self.box, self.kinds, self.seed = box, kinds, seed
        self.case = box / "case"
        own = [box / "home", box / "tmp"]
        for folder in own:
            folder.mkdir(parents=True, exist_ok=True)
        os.environ.update(OPTRODE_HOME=str(own[0]), TMPDIR=str(own[1]), HF_HOME=str(own[0] / "hf"))
        import tempfile

        tempfile.tempdir = str(own[1])
        warnings.simplefilter("ignore")
        self.folders = {name: sorted(path for path in (corpus / name).iterdir() if path.is_dir()) for name in kinds}
        self.seeds = {name: [load(folder) for folder in folders] for name, folders in self.folders.items()}
        BOMBS.update({"." + file.name.removeprefix("bomb."): file.read_bytes() for file in corpus.glob("*/bomb.*")})
        self._warm_up()
        limit_memory(limits.mebibytes)
        self.guard, self.peak = Guard(self.case, own, limits.seconds), Peak()
        for name, kind in kinds.items():
            for number in range(10):
                # Ways to refuse import modules of their own; what these come to is not counted.
                self.judge(kind, number, made(kind, number, -1, self.seeds[name]))
        gc.collect()
        gc.freeze()
        limit_memory(limits.mebibytes)

    def _warm_up(self) -> None:
        """Read every seed: all that are not meant to be refused must be read. Imports what libraries import late."""
        for name, kind in self.kinds.items():
            for folder, seed in zip(self.folders[name], self.seeds[name], strict=True):
                write(seed, self.case)
                try:
                    kind.read(self.case)
                except OptrodeError as problem:
                    if not folder.name.startswith("refused"):
                        raise SystemExit(f"seed {folder.name} of {name} is refused: {problem}") from problem

    def run(self, kind: Kind, number: int) -> Outcome:
        tree = made(kind, number, self.seed, self.seeds[kind.name])
        return self.judge(kind, number, tree)

    def judge(self, kind: Kind, number: int, tree: Tree) -> Outcome:
        write(tree, self.case)
        self.guard.allowed = kind.imports
        before = set(os.listdir(self.case))
        verdict, signature, detail = "read", "", ""
        self.peak.start()
        started = time.perf_counter()
        try:
            with self.guard.watching():
                kind.read(self.case)
        except OptrodeError as problem:
            verdict = "refused"
            fault = fault_of(str(problem))
            if fault:
                verdict, signature, detail = "finding", f"{fault} at {_where(problem)}", repr(str(problem))[:2000]
        except TooLong as problem:
            verdict, signature, detail = "finding", f"TooLong at {_where(problem)}", _told(problem)
        except BaseException as problem:
            verdict, signature, detail = "finding", f"{type(problem).__name__} at {_where(problem)}", _told(problem)
        seconds, peak = time.perf_counter() - started, self.peak.end()
        if self.guard.seen:
            verdict, signature = "finding", f"audit: {self.guard.seen[0][:120]}"
            detail = "\n".join(self.guard.seen)
        elif self._left(before):
            verdict, signature = "finding", "the folder of the input has other files than before"
        return Outcome(kind.name, number, verdict, seconds, peak, signature, detail)

    def _left(self, before: set[str]) -> bool:
        """Whether something was put among the files of the input; what was converted goes."""
        for name in ("converted", "locks"):
            shutil.rmtree(self.box / "home" / name, ignore_errors=True)
        return set(os.listdir(self.case)) != before


def fault_of(message: str) -> str:
    """What is wrong with a message: empty, over one line, too long, or with characters that no terminal should get."""
    if not message.strip():
        return "empty message"
    if len(message.splitlines()) > 1:
        return "message of several lines"
    if len(message) > LONGEST_MESSAGE:
        return "long message"
    if any(unicodedata.category(sign) in ("Cc", "Cs") or 0x202A <= ord(sign) <= 0x202E for sign in message):
        return "control characters in a message"
    return ""


def _where(problem: BaseException) -> str:
    """The innermost line of optrode that an error went through."""
    frames = [frame for frame in _frames(problem) if "/optrode/" in frame.filename]
    if not frames:
        frames = list(_frames(problem))[-1:]
    if not frames:
        return "?"
    last = frames[-1]
    return f"{'/'.join(Path(last.filename).parts[-2:])}:{last.name}"


def _frames(problem: BaseException) -> Iterator[traceback.FrameSummary]:
    yield from traceback.extract_tb(problem.__traceback__)


def _told(problem: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(type(problem), problem, problem.__traceback__, limit=-12))[-4000:]
    except Exception:
        return type(problem).__name__


def serve(bench: Bench, pipe: Any) -> None:
    """Run the inputs that come through a pipe, and send back each outcome."""
    while (task := pipe.recv()) is not None:
        name, numbers = task
        for number in numbers:
            pipe.send(("begin", number))
            pipe.send(("end", bench.run(bench.kinds[name], number)))
        pipe.send(("done", None))
