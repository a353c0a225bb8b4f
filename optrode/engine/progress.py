"""Progress bars on standard error for anything that takes over two seconds; silent where nobody looks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, TypeVar

Item = TypeVar("Item")
QUIET_SECONDS = 2.0
_DEPTH: ContextVar[int] = ContextVar("optrode_progress_depth", default=0)


def track(items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
    """Yield `items`; after two seconds show how far it got. Bars inside a bar stay silent.

    >>> list(track([1, 2], "counting"))
    [1, 2]
    """
    count = total if total is not None else (len(items) if isinstance(items, Sequence) else None)
    token = _DEPTH.set(_DEPTH.get() + 1)
    outermost = _DEPTH.get() == 1
    started, bar, task = time.monotonic(), None, None
    try:
        for done, item in enumerate(items):
            if bar is None and outermost and time.monotonic() - started > QUIET_SECONDS:
                bar = _bar()
                if bar is not None:
                    bar.start()
                    task = bar.add_task(what, total=count, completed=done)
            yield item
            if bar is not None and task is not None:
                bar.update(task, completed=done + 1)
    finally:
        if bar is not None:
            bar.stop()
        try:
            _DEPTH.reset(token)
        except ValueError:
            # A generator that is closed in another context must not hide the error that closed it.
            _DEPTH.set(0)


def _bar():  # type: ignore[no-untyped-def]
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if not console.is_terminal:
        return None
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
        console=console, transient=True,
    )  # fmt: skip


class Steps:
    """Named steps of a long job on one status line, with the time so far; silent where nobody looks.

    >>> with Steps("a job") as steps:
    ...     [number for number in steps.each([1, 2], str)]
    [1, 2]
    """

    def __init__(self, what: str):
        self._what = what
        self._started = time.monotonic()
        self._status: Any = None
        self._token: Any = None

    def __enter__(self) -> Steps:
        from rich.console import Console

        console = Console(stderr=True)
        # Bars of the parts would fight with the line of the whole.
        self._token = _DEPTH.set(_DEPTH.get() + 1)
        if console.is_terminal:
            self._status = console.status(self._what)
            self._status.start()
        return self

    def __exit__(self, *problem: object) -> None:
        if self._status is not None:
            self._status.stop()
        _DEPTH.reset(self._token)

    def clock(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def at(self, step: str) -> None:
        """Say which step has begun."""
        if self._status is not None:
            self._status.update(f"{self._what}: {step} ({self.clock():.0f} s)")

    def each(self, items: Iterable[Item], name: Callable[[Item], str]) -> Iterator[Item]:
        """Yield items, naming each as its own step."""
        listed = list(items)
        for number, item in enumerate(listed, 1):
            self.at(f"{name(item)} [{number}/{len(listed)}]")
            yield item
