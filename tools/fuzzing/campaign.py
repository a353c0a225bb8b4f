"""Hands inputs out to worker processes, counts what comes back, and starts a worker again when an input killed it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from .kinds import Kind
from .worker import Bench, Limits, Outcome, serve

# Inputs that a worker gets at once.
_CHUNK = 32
FORK = multiprocessing.get_context("fork")


@dataclass
class Tally:
    """What became of the inputs of one kind. `slowest` is in seconds, `peak` in MiB beyond what the process had."""

    inputs: int = 0
    read: int = 0
    refused: int = 0
    finding: int = 0
    slowest: float = 0.0
    peak: float = 0.0

    def count(self, outcome: Outcome) -> None:
        self.inputs += 1
        setattr(self, outcome.verdict, getattr(self, outcome.verdict) + 1)
        self.slowest, self.peak = max(self.slowest, outcome.seconds), max(self.peak, outcome.peak)


@dataclass
class Result:
    """Tallies by kind, and the first outcome of each cause with how often it came."""

    tallies: dict[str, Tally]
    first: dict[tuple[str, str], Outcome] = field(default_factory=dict)
    often: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, outcome: Outcome) -> None:
        self.tallies[outcome.kind].count(outcome)
        if outcome.verdict == "finding":
            key = outcome.kind, outcome.signature
            self.often[key] += 1
            if key not in self.first or outcome.number < self.first[key].number:
                self.first[key] = outcome


def numbers_of(kinds: dict[str, Kind], inputs: int) -> dict[str, int]:
    """How many inputs each kind gets; together exactly `inputs`."""
    total = sum(kind.share for kind in kinds.values())
    counts = {name: int(inputs * kind.share / total) for name, kind in kinds.items()}
    for name in list(kinds)[: inputs - sum(counts.values())]:
        counts[name] += 1
    return counts


def _tasks(counts: dict[str, int]) -> Iterator[tuple[str, list[int]]]:
    """Chunks of all kinds in turn, so that a run that is cut short has seen every kind."""
    rounds = max((-(-count // _CHUNK) for count in counts.values()), default=0)
    for step in range(rounds):
        for name, count in counts.items():
            # Kinds of fewer inputs are spread over all rounds.
            first, last = (count * at // rounds for at in (step, step + 1))
            if first < last:
                yield name, list(range(first, last))


class Hand:
    """One worker process, as its owner sees it."""

    def __init__(self, number: int, box: Path, make: Callable[[Path], Bench]):
        self.number, self.box, self._make = number, box, make
        self.name, self.waiting, self.current, self.since = "", [], -1, 0.0
        self.start()

    def start(self) -> None:
        self.pipe, far = FORK.Pipe()
        self.process = FORK.Process(target=_work, args=(self._make, self.box, far, self.pipe), daemon=True)
        self.process.start()
        far.close()
        self.since = time.monotonic() + 100

    def give(self, name: str, numbers: list[int]) -> None:
        self.name, self.waiting, self.since = name, list(numbers), time.monotonic() + 100
        self.pipe.send((name, numbers))

    def stop(self) -> None:
        with suppress(OSError):
            self.pipe.send(None)
        self.process.join(5)
        if self.process.is_alive():
            self.process.kill()


def _work(make: Any, box: Path, pipe: Connection, near: Connection) -> None:
    near.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What libraries print about damaged files belongs to nobody.
    if not os.environ.get("FUZZ_NOISE"):
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
    try:
        bench = make(box)
    except BaseException as problem:
        pipe.send(("failed", f"{type(problem).__name__}: {problem}"))
        raise
    pipe.send(("ready", None))
    serve(bench, pipe)


def run(
    kinds: dict[str, Kind], make: Callable[[Path], Bench], box: Path, *, inputs: int, limits: Limits, workers: int,
    seconds: float | None = None,
) -> Result:  # fmt: skip
    """Read `inputs` inputs, or as many as there is time for."""
    from optrode.engine.progress import Amount

    result = Result({name: Tally() for name in kinds})
    counts = numbers_of(kinds, inputs)
    tasks = _tasks(counts)
    until = time.monotonic() + seconds if seconds else None
    hands = [Hand(number, box / f"worker-{number}", make) for number in range(workers)]
    busy = {hand.pipe: hand for hand in hands}
    with Amount("fuzzing", inputs, "inputs") as bar:
        try:
            while busy:
                ready = wait(list(busy), timeout=1.0)
                for pipe in ready:
                    hand = busy[pipe]  # type: ignore[index]
                    if not _heard(hand, result, bar, tasks, until):
                        busy = {other.pipe: other for other in busy.values() if other is not hand}
                    elif hand.pipe is not pipe:
                        busy = {(other.pipe): other for other in busy.values()}
                for hand in list(busy.values()):
                    if time.monotonic() > hand.since + 4 * limits.seconds:
                        hand.process.kill()
        finally:
            for hand in hands:
                hand.stop()
    return result


def _heard(hand: Hand, result: Result, bar: Any, tasks: Iterator[Any], until: float | None) -> bool:
    """Take what a worker says, or its death; whether it has more to do."""
    try:
        what, value = hand.pipe.recv()
    except (EOFError, ConnectionResetError):
        return _died(hand, result, bar)
    if what == "begin":
        hand.current, hand.since = value, time.monotonic()
    elif what == "failed":
        raise SystemExit(f"a worker could not begin: {value}")
    elif what == "end":
        hand.current = -1
        hand.waiting.remove(value.number)
        hand.since = time.monotonic() + 60
        result.add(value)
        bar.add(1)
    else:
        task = None if until and time.monotonic() > until else next(tasks, None)
        if task is None:
            return False
        hand.give(*task)
    return True


def _died(hand: Hand, result: Result, bar: Any) -> bool:
    hand.process.join()
    code = hand.process.exitcode
    if hand.current < 0:
        raise SystemExit(f"a worker ended with {code} before it had read anything: set FUZZ_NOISE=1 to see why")
    cause = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
    cause = "a read that nothing but a kill ends" if cause == "SIGKILL" else f"the process died: {cause}"
    result.add(Outcome(hand.name, hand.current, "finding", 0.0, 0.0, cause, cause))
    bar.add(1)
    hand.waiting.remove(hand.current)
    rest, name = hand.waiting, hand.name
    hand.current = -1
    hand.start()
    # The answer to being ready would be another chunk: the rest of this one comes first.
    what, value = hand.pipe.recv()
    if what == "failed":
        raise SystemExit(f"a worker could not begin again: {value}")
    hand.give(name, rest)
    return True
