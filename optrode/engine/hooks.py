"""One set of hooks for all networks, and the per-context plan that the hooks look up.

A hook does nothing by itself: it asks the current context which sessions are active. Threads and tasks that were not
given the context see an unedited network, and two contexts with two edits each see their own. Hooks are put in front of
the owner's and are gone, to the last entry, when the last session that needs them ends, whatever ended it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import nn

from .editing.undo import having
from .recompute import carry, meant

if TYPE_CHECKING:
    from .editing.session import Session

Point = tuple[nn.Module, str]
ACTIVE: ContextVar[tuple[Session, ...]] = ContextVar("optrode_active_sessions", default=())


def active_sessions() -> list[Session]:
    """The sessions of this context, outermost first.

    A context that was copied inside a block, such as that of a task, still names sessions that have ended since.
    """
    return [session for session in ACTIVE.get() if not session.over and meant(session)]


@contextmanager
def hooks_alone() -> Iterator[None]:
    """Within the block no session of the context is active: a measurement of the unedited network."""
    with having(ACTIVE, ()):
        yield


# Putting hooks on and taking them off -------------------------------------------------------------------------------


class Side(NamedTuple):
    """How a module is hooked at one side. `take_off` bears a module that is not hooked, or hooked by half."""

    put_on: Callable[[nn.Module], None]
    take_off: Callable[[nn.Module], None]


class _Held:
    """A hooked place of a module and those who need it so. Holds on to the module, whose id is the key."""

    def __init__(self, module: nn.Module):
        self.module = module
        self.users: set[object] = set()
        self.complete = False


class HookSet:
    """Which modules are hooked at which side, and for whom; there is one hook at each place, whoever asks.

    Every step can be cut short by an interrupt and be run again.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[int, str], _Held] = {}
        # A generator may be closed by the garbage collector, and so want to drop, in the middle of any line here.
        self._lock = threading.RLock()

    def take(self, points: Iterable[Point], user: object) -> None:
        """Make sure that each point is hooked. Whatever happens here, `drop` undoes it."""
        for module, side in points:
            with self._lock:
                held = self._join(module, side, user)
                if not held.complete:
                    INSTALL[side].take_off(module)
                    INSTALL[side].put_on(module)
                    held.complete = True

    def drop(self, points: Iterable[Point], user: object) -> None:
        """Say that `user` no longer needs these points; those that nobody needs are taken off."""
        for module, side in points:
            with self._lock:
                held = self._held.get((id(module), side))
                if held is None:
                    continue
                held.users.discard(user)
                if not held.users:
                    held.complete = False
                    INSTALL[side].take_off(module)
                    self._held.pop((id(module), side), None)

    def _join(self, module: nn.Module, side: str, user: object) -> _Held:
        while True:
            held = self._held.setdefault((id(module), side), _Held(module))
            held.users.add(user)
            if self._held.get((id(module), side)) is held:
                return held

    def __len__(self) -> int:
        return len(self._held)


HOOKS = HookSet()


# What the hooks do --------------------------------------------------------------------------------------------------

# What changed weights give comes first, as if they were the network's own. All sessions edit before any of them looks,
# so that what is noted or read is what the network goes on with, and sums that are written through a part come after
# the edits of that part, as they do in the network.


def _before(module: nn.Module, args: tuple, kwargs: dict | None = None) -> tuple[tuple, dict] | None:
    if kwargs is None:
        # Another thread is putting this hook on or taking it off right now, so nobody here needs it.
        return None
    sessions, given = active_sessions(), (args, kwargs)
    carry(sessions)
    for session in sessions:
        session.begin_forward(module, args, kwargs)
        args, kwargs = session.edit_input(module, args, kwargs)
    for session in sessions:
        session.see_input(module, args, kwargs)
    return (args, kwargs) if args is not given[0] or kwargs is not given[1] else None


def _after(module: nn.Module, args: tuple, output: Any) -> Any:
    sessions, changed = active_sessions(), output
    carry(sessions)
    for session in sessions:
        changed = session.add_weights(module, args, changed)
    for session in sessions:
        changed = session.reroute(module, args, changed)
    for session in sessions:
        changed = session.edit_output(module, changed)
    for session in sessions:
        changed = session.write_sums(module, changed)
    for session in sessions:
        session.see_output(module, changed)
    return changed if changed is not output else None


def _put_before(module: nn.Module) -> None:
    module.register_forward_pre_hook(_before, prepend=True, with_kwargs=True)


def _take_before(module: nn.Module) -> None:
    _take(_before, module._forward_pre_hooks, module._forward_pre_hooks_with_kwargs)


def _put_after(module: nn.Module) -> None:
    module.register_forward_hook(_after, prepend=True)


def _take_after(module: nn.Module) -> None:
    _take(_after, module._forward_hooks)


def _take(ours: Callable[..., Any], hooks: dict[int, Any], *tables: dict[int, Any]) -> None:
    """Take every entry of ours out of a module's hooks: found by what it is, so that no handle can get lost."""
    for number in [number for number, hook in list(hooks.items()) if hook is ours]:
        for table in (*tables, hooks):
            table.pop(number, None)


# How a module is hooked, by side. Other files add their own sides.
INSTALL: dict[str, Side] = {"in": Side(_put_before, _take_before), "out": Side(_put_after, _take_after)}
