"""Undoing for certain: what a block changed is put back whatever ends the block, even if that is cut short itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

Value = TypeVar("Value")


@contextmanager
def sure(undo: Callable[[], None]) -> Iterator[None]:
    """Run `undo` when the block ends, and once more: an interrupt may have cut the first run short.

    Enter this before doing what `undo` takes back, so that no interrupt falls between the two. `undo` must bear being
    run when nothing, or only a part, was done.
    """
    try:
        try:
            yield
        finally:
            undo()
    finally:
        undo()


@contextmanager
def having(variable: ContextVar[Value], value: Value) -> Iterator[None]:
    """Within the block the context variable has this value; afterwards that of before."""
    before = variable.get()
    with sure(lambda: _put(variable, before)):
        variable.set(value)
        yield


def _put(variable: ContextVar[Value], value: Value) -> None:
    # Not `reset`: a block may end in another context than it began in, as generators do when they are closed.
    variable.set(value)
