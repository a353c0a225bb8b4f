"""One reference-counted set of hooks per network, and the per-context plan that they look up.

A hook does nothing by itself: it asks the current context which sessions are active. Threads and tasks that were not
given the context see an unedited network, and two contexts with two edits each see their own. Hooks are put in front of
the owner's and are gone, to the last entry, when the last session that needs them ends, whatever ended it.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from .session import Session

Point = tuple[nn.Module, str]
ACTIVE: ContextVar[tuple[Session, ...]] = ContextVar("optrode_active_sessions", default=())


def active_sessions() -> list[Session]:
    """The sessions of this context, outermost first.

    A context that was copied inside a block, such as that of a task, still names sessions that have ended since.
    """
    return [session for session in ACTIVE.get() if not session.over]


class _Held:
    def __init__(self, handle: Any):
        self.handle = handle
        self.users = 1


class HookSet:
    """The hooks of one network, by module and side."""

    def __init__(self) -> None:
        self._held: dict[tuple[int, str], _Held] = {}
        self._lock = threading.Lock()

    def acquire(self, points: Iterable[Point]) -> Callable[[], None]:
        """Make sure each point is hooked; the function that is returned lets go of them, once."""
        points = list(points)
        done: list[Point] = []
        try:
            for point in points:
                self._take(point)
                done.append(point)
        except BaseException:
            self._drop(done)
            raise
        return lambda: self._drop(done)

    def _take(self, point: Point) -> None:
        module, side = point
        with self._lock:
            held = self._held.get((id(module), side))
            if held:
                held.users += 1
            else:
                self._held[id(module), side] = _Held(INSTALL[side](module))

    def _drop(self, points: list[Point]) -> None:
        while points:
            module, side = points.pop()
            with self._lock:
                held = self._held[id(module), side]
                held.users -= 1
                if not held.users:
                    held.handle.remove()
                    del self._held[id(module), side]


@contextmanager
def hooks_alone() -> Iterator[None]:
    """Within the block no session of the context is active: a measurement of the unedited network."""
    token = ACTIVE.set(())
    try:
        yield
    finally:
        ACTIVE.reset(token)


_SETS: weakref.WeakKeyDictionary[nn.Module, HookSet] = weakref.WeakKeyDictionary()


def hook_set(module: nn.Module) -> HookSet:
    """The one hook set of a network."""
    return _SETS.setdefault(module, HookSet())


# All sessions edit before any of them looks, so that what is noted or read is what the network goes on with, and sums
# that are written through a part come after the edits of that part, as they do in the network.


def _before(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
    sessions, given = active_sessions(), (args, kwargs)
    for session in sessions:
        session.begin_forward(module, args, kwargs)
        args, kwargs = session.edit_input(module, args, kwargs)
    for session in sessions:
        session.see_input(module, args, kwargs)
    return (args, kwargs) if args is not given[0] or kwargs is not given[1] else None


def _after(module: nn.Module, args: tuple, output: Any) -> Any:
    sessions, changed = active_sessions(), output
    for session in sessions:
        changed = session.reroute(module, args, changed)
    for session in sessions:
        changed = session.edit_output(module, changed)
    for session in sessions:
        changed = session.write_sums(module, changed)
    for session in sessions:
        session.see_output(module, changed)
    return changed if changed is not output else None


def _install_before(module: nn.Module) -> Any:
    return module.register_forward_pre_hook(_before, prepend=True, with_kwargs=True)


def _install_after(module: nn.Module) -> Any:
    return module.register_forward_hook(_after, prepend=True)


# What puts a hook on a module, by side. It gives a handle with `remove`. Other files add their own sides.
INSTALL: dict[str, Callable[[nn.Module], Any]] = {"in": _install_before, "out": _install_after}
