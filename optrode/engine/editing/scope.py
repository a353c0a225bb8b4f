"""The scope of a `with model.edited(...)` block: what is active in it, carried into threads, and when it is over.

A block's scope is the context it made: its own edits and those of the blocks around it. Threads that were given it run
under those edits for as long as the block lasts. What was started in a block and is still running when the block ends
has lost its edits on the way; that is an error where it is noticed, never a half-edited answer.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from typing import ParamSpec, Protocol, TypeVar
from weakref import WeakSet

from ...errors import NotSupported
from .undo import sure

Given = ParamSpec("Given")
Result = TypeVar("Result")


class Guest(Protocol):
    """Something that runs in a thread of its own under a block's edits."""

    def leave(self) -> None:
        """The block has ended: stop, and return when nothing runs any more."""


class Scope:
    """What one block made active. `over` outlives the block in contexts that were copied inside it."""

    def __init__(self) -> None:
        self.over = False
        self._context: Context | None = None
        self._guests: WeakSet[Guest] = WeakSet()

    def hold(self) -> None:
        """Take the context as it is now for the scope's."""
        self._context = copy_context()

    def bind(self, function: Callable[Given, Result]) -> Callable[Given, Result]:
        """`function`, to be called from any thread under this block's edits. See `Receipt.bind`."""
        name = getattr(function, "__name__", type(function).__name__)
        if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
            raise NotSupported(
                f"{name} does not run when it is called, so nothing can be bound to it: bind the plain function that "
                "it calls (a task that is made inside the block has the edits already)"
            )

        @functools.wraps(function)
        def bound(*args: Given.args, **kwargs: Given.kwargs) -> Result:
            self.check()
            assert self._context is not None
            # A copy, since a context is entered by one thread at a time.
            result = self._context.copy().run(function, *args, **kwargs)
            self.check()
            return result

        return bound

    def check(self) -> None:
        """Raise `NotSupported` when the block has ended."""
        if self.over:
            raise ended()

    def welcome(self, guest: Guest) -> None:
        """Take in what runs under these edits on its own; it is told to leave when the block ends."""
        self._guests.add(guest)

    def end(self) -> None:
        """The block has ended."""
        self.over = True
        SCOPES.set(tuple(other for other in SCOPES.get() if other is not self))
        for guest in list(self._guests):
            guest.leave()
            self._guests.discard(guest)


def ended() -> NotSupported:
    return NotSupported(
        "the block of the edit ended before what was started in it: wait for threads, and read streams, inside the "
        "`with` block"
    )


SCOPES: ContextVar[tuple[Scope, ...]] = ContextVar("optrode_scopes", default=())


@contextmanager
def scoped() -> Iterator[Scope]:
    """A scope for the block that follows; everything it consists of has to be active by now."""
    scope = Scope()
    with sure(scope.end):
        # Scopes that ended in another context are still named in this one.
        SCOPES.set((*open_scopes(), scope))
        scope.hold()
        yield scope


def open_scopes() -> list[Scope]:
    """The scopes of this context whose blocks have not ended."""
    return [scope for scope in SCOPES.get() if not scope.over]
