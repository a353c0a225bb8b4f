"""A thread that makes things one by one, and a queue of few places from which another takes them."""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

from ..editing.scope import ended

# How long to wait for a thread that was told to stop. It stops after the forward it is in.
PATIENCE = 60.0


class Channel:
    """A queue of at most `room` items between one thread that makes them and one that takes them.

    `result` is what the work returned, once it has come to its own end.
    """

    def __init__(self, room: int):
        self.stopped = False
        self.result: Any = None
        self._room = room
        self._items: deque[Any] = deque()
        self._changed = threading.Condition()
        self._problem: BaseException | None = None
        self._done = False
        self._thread: threading.Thread | None = None

    def start(self, work: Callable[[], Any]) -> None:
        """Run `work` in a thread of its own; it calls `put`."""
        _CHANNELS.add(self)
        self._thread = threading.Thread(target=self._run, args=(work,), name="optrode-stream", daemon=True)
        self._thread.start()

    def _run(self, work: Callable[[], Any]) -> None:
        try:
            self._end(work(), None)
        except BaseException as problem:
            self._end(None, problem)

    def _end(self, result: Any, problem: BaseException | None) -> None:
        with self._changed:
            if not self.stopped:
                self.result, self._problem = result, problem
            self._done = True
            self._changed.notify_all()

    def put(self, item: Any) -> None:
        """Add an item when there is room; nothing after `stop`."""
        with self._changed:
            while len(self._items) >= self._room and not self.stopped:
                self._changed.wait()
            if not self.stopped:
                self._items.append(item)
                self._changed.notify_all()

    def get(self) -> Any:
        """The next item; None when there are no more. Raises what the work raised, once."""
        with self._changed:
            while not self._items and not self._done and not self.stopped and self._alive():
                self._changed.wait(1.0)
            if self._items:
                item = self._items.popleft()
                self._changed.notify_all()
                return item
            problem, self._problem = self._problem, None
            if not self._done and not self.stopped:
                self.stopped, problem = True, RuntimeError("the thread of a stream was killed")
        if isinstance(problem, StopIteration):
            # It would look like the end of an iterator that is read through.
            raise RuntimeError("the work of a stream raised StopIteration") from problem
        if problem is not None:
            raise problem
        return None

    def stop(self) -> None:
        """Say that nobody will take any more; returns at once."""
        with self._changed:
            self.stopped = True
            self._changed.notify_all()

    def close(self) -> None:
        """Stop, throw away what was not taken, and wait until the thread is gone."""
        self.stop()
        self._items.clear()
        self._problem = None
        self._join()

    def leave(self) -> None:
        """The block has ended: stop and wait until the thread is gone. Taking more than is there says what happened."""
        with self._changed:
            if not self._done and not self.stopped:
                self._problem = ended()
            self.stopped = True
            self._changed.notify_all()
        self._join()

    def _alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _join(self) -> None:
        thread = self._thread
        if thread is None or thread.ident is None or thread is threading.current_thread():
            return
        # Not `join` alone: where an interrupt falls into it, it takes the thread for ended.
        until = time.monotonic() + PATIENCE
        with self._changed:
            while not self._done and self._alive() and time.monotonic() < until:
                self._changed.wait(1.0)
        thread.join(1.0)


_CHANNELS: weakref.WeakSet[Channel] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    """Threads must not compute while the interpreter is taken down."""
    for channel in list(_CHANNELS):
        channel.close()
