"""Progress bars on standard error for anything that takes over two seconds; silent where nobody looks."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextvars import ContextVar
from typing import TypeVar

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
