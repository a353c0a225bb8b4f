"""Progress bars for anything that takes over two seconds: on a terminal's standard error, or as one line of a notebook.

Silent where nobody looks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, TypeVar

from ..notebook.bar import notebook, notebook_bar

Item = TypeVar("Item")
QUIET_SECONDS = 2.0
_DEPTH: ContextVar[int] = ContextVar("optrode_progress_depth", default=0)


def track(items: Iterable[Item], what: str, total: int | None = None) -> Generator[Item, None, None]:
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
    if notebook():
        return notebook_bar()
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
    """A long job in named steps: one bar with the step at hand, how far it got, and the time so far.

    >>> with Steps("a job") as steps:
    ...     [number for number in steps.each([1, 2], str)]
    [1, 2]
    """

    def __init__(self, what: str):
        self._what = what
        self._started = time.monotonic()
        self._bar: Any = None
        self._task: Any = None
        self._token: Any = None

    def __enter__(self) -> Steps:
        # Bars of the parts would fight with that of the whole.
        self._token = _DEPTH.set(_DEPTH.get() + 1)
        self._bar = _bar()
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task(self._what, total=None)
        return self

    def __exit__(self, *problem: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        _DEPTH.reset(self._token)

    def clock(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def at(self, step: str) -> None:
        """Say which step has begun; how long it takes is not known."""
        self._show(step, None, 0)

    def each(self, items: Iterable[Item], name: Callable[[Item], str]) -> Iterator[Item]:
        """Yield items, naming each as a step of its own and counting them."""
        listed = list(items)
        for done, item in enumerate(listed):
            self._show(name(item), len(listed), done)
            yield item

    def _show(self, step: str, total: int | None, done: int) -> None:
        if self._bar is not None:
            self._bar.update(self._task, description=f"{self._what}: {step}", total=total, completed=done)


class Amount:
    """A long job by amount: how much is done, how fast, and how long the rest takes.

    >>> with Amount("writing", 10, "rows") as bar:
    ...     bar.skip(4)
    ...     bar.add(6)
    """

    def __init__(self, what: str, total: int | None, unit: str):
        self._what, self._total, self._unit = what, total, unit
        self._done = self._skipped = 0
        self._started = time.monotonic()
        self._bar: Any = None
        self._task: Any = None
        self._token: Any = None

    def __enter__(self) -> Amount:
        self._token = _DEPTH.set(_DEPTH.get() + 1)
        self._outermost = _DEPTH.get() == 1
        return self

    def __exit__(self, *problem: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        _DEPTH.reset(self._token)

    def skip(self, amount: int) -> None:
        """Count what was done before; it says nothing about the speed."""
        self._skipped += amount
        self.add(amount)

    def add(self, amount: int) -> None:
        self._done += amount
        seconds = time.monotonic() - self._started
        if self._bar is None and self._outermost and seconds > QUIET_SECONDS:
            self._bar = _amount_bar()
            self._outermost = self._bar is not None
            if self._bar is not None:
                self._bar.start()
                self._task = self._bar.add_task(self._what, total=self._total, speed="", left="")
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, total=self._total, **self._pace(seconds))

    def _pace(self, seconds: float) -> dict[str, str]:
        speed = (self._done - self._skipped) / max(seconds, 1e-9)
        of = f"{self._done:,}" + (f" of {self._total:,}" if self._total else "")
        left = (self._total - self._done) / speed if self._total and speed else None
        says = f"{of} {self._unit}, {speed:,.0f} a second"
        return {"speed": says, "left": f"{_clock(left)} left" if left is not None else ""}


def _clock(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> _clock(3725)
    '1:02:05'
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _amount_bar():  # type: ignore[no-untyped-def]
    if notebook():
        return notebook_bar()
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        return None
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[speed]}"))
    return Progress(*columns, TextColumn("{task.fields[left]}"), console=console, transient=True)
