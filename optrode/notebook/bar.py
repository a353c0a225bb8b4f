"""Progress in a notebook: one quiet line that goes when the work is done; nothing where output is captured."""

from __future__ import annotations

import sys
import time
from typing import Any

from .html import Html, attempt, quiet, tag, whole
from .text import cut

# Seconds between two drawings of the line.
_PACE = 0.25


def notebook() -> Any:
    """The shell of the notebook that this runs in; None elsewhere. Imports nothing."""
    shells = sys.modules.get("IPython.core.getipython")
    shell = attempt(lambda: shells.get_ipython()) if shells is not None else None
    return shell if getattr(shell, "kernel", None) is not None else None


def captured(shell: Any) -> bool:
    """Whether what is displayed is being collected, as by `%%capture`, rather than shown."""
    return hasattr(getattr(shell, "display_pub", None), "outputs")


def notebook_bar() -> NotebookBar | None:
    """A bar for the notebook that this runs in; None elsewhere, and where nobody looks."""
    shell = notebook()
    return NotebookBar() if shell is not None and not captured(shell) else None


class NotebookBar:
    """A line of text and a bar, with the methods of rich's `Progress` that optrode uses. It holds one task."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._state: dict[str, Any] = {}
        self._started = self._drawn = time.monotonic()

    def start(self) -> None:
        self._started = time.monotonic()

    def add_task(self, description: str, **state: Any) -> int:
        self._state = {"description": description, "completed": 0, **state}
        self._draw()
        return 0

    def update(self, task: Any, **state: Any) -> None:
        self._state |= state
        if time.monotonic() - self._drawn >= _PACE:
            self._draw()

    def stop(self) -> None:
        """Leave nothing behind."""
        if self._handle is not None:
            attempt(lambda: self._handle.update({"text/plain": "", "text/html": ""}, raw=True))
            self._handle = None

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        attempt(self._show)

    def _show(self) -> None:
        from IPython.display import display

        shown = {"text/plain": self.text(), "text/html": whole(self.html())}
        if self._handle is None:
            self._handle = display(shown, raw=True, display_id=True)
        else:
            self._handle.update(shown, raw=True)

    def text(self) -> str:
        """What it says, in one line."""
        return f"{cut(self._state.get('description', ''), 80)}: {self._says()}".rstrip(": ")

    def html(self) -> Html:
        total, done = self._state.get("total"), self._state.get("completed") or 0
        bar = tag("progress", max=total or None, value=done if total else None)
        return tag("div", cut(self._state.get("description", ""), 80), bar, quiet(self._says()))

    def _says(self) -> str:
        if self._state.get("speed"):
            return ", ".join(filter(None, (self._state["speed"], self._state.get("left"))))
        total, done = self._state.get("total"), self._state.get("completed") or 0
        seconds = time.monotonic() - self._started
        if not total:
            return f"{seconds:.0f} s"
        left = f", {seconds / done * (total - done):.0f} s left" if done and seconds > 1 else ""
        return f"{done:,} of {total:,}{left}"
