"""What a chat shows: in colours and columns on a terminal, plain lines in a pipe."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from ...errors import OptrodeError
from .room import Reply, Room, Turn

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from ...engine.generating.stream import Stream


class Screen(Protocol):
    """Where a chat is shown."""

    # How many lines could not be done.
    failed: int

    def say(self, text: str) -> None: ...

    def table(self, rows: Sequence[tuple[str, ...]]) -> None: ...

    def trouble(self, problem: OptrodeError | str) -> None: ...

    def turn(self, room: Room, text: str) -> None:
        """Answer one turn and show the reply while it is written."""


class Plain:
    """Replies and answers on standard output, a line each; errors and what else there is to know on standard error."""

    def __init__(self) -> None:
        self.failed = 0

    def say(self, text: str) -> None:
        print(text, flush=True)

    def table(self, rows: Sequence[tuple[str, ...]]) -> None:
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip(), flush=True)

    def trouble(self, problem: OptrodeError | str) -> None:
        self.failed += 1
        print(f"optrode: {problem}", file=sys.stderr, flush=True)

    def turn(self, room: Room, text: str) -> None:
        turn = room.ask(text, self._show)
        if turn.reply.stopped:
            # Nobody is there to go on with the next line.
            raise KeyboardInterrupt
        if turn.reply.trouble:
            self.trouble(turn.reply.trouble)

    def _show(self, stream: Stream, beside: Stream | None, reply: Reply) -> None:
        try:
            _write("edited: " if beside is not None else "")
            for piece in stream:
                reply.text += piece
                _write(piece)
            if beside is not None:
                _write("\nunedited: ")
                for piece in beside:
                    reply.unedited = (reply.unedited or "") + piece
                    _write(piece)
        finally:
            _write("\n")


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


class Terminal:
    """Replies that wrap between words, two columns where both models answer, and a line on what the edits did."""

    def __init__(self, console: Console):
        self.console = console
        self.failed = 0

    def say(self, text: str) -> None:
        self.console.print(text, style="dim", markup=False, highlight=False)

    def table(self, rows: Sequence[tuple[str, ...]]) -> None:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(style="bold", no_wrap=True)
        for row in rows:
            table.add_row(*map(Text, row))
        self.console.print(table)

    def trouble(self, problem: OptrodeError | str) -> None:
        self.failed += 1
        self.console.print(str(problem), style="red", markup=False, highlight=False)

    def turn(self, room: Room, text: str) -> None:
        turn = room.ask(text, self._show)
        if turn.reply.trouble:
            self.trouble(turn.reply.trouble)
        self.console.print(_status(room, turn), style="dim", markup=False, highlight=False)
        self.console.print()

    def _show(self, stream: Stream, beside: Stream | None, reply: Reply) -> None:
        if beside is None:
            self._flow(stream, reply)
        else:
            self._columns(stream, beside, reply)

    def _flow(self, stream: Stream, reply: Reply) -> None:
        flow = Flow(self.console.width)
        try:
            for piece in stream:
                reply.text += piece
                _write(flow.add(piece))
        finally:
            _write(flow.rest() + "\n")

    def _columns(self, stream: Stream, beside: Stream, reply: Reply) -> None:
        from rich.live import Live

        try:
            # What is longer than the screen is cut while it grows, and printed whole at its end.
            with Live(console=self.console, transient=True, vertical_overflow="ellipsis", refresh_per_second=8) as live:
                for edited, unedited in _together(stream, beside):
                    reply.text += edited
                    reply.unedited = (reply.unedited or "") + unedited
                    live.update(_side_by_side(reply))
        finally:
            self.console.print(_side_by_side(reply))


def _together(first: Stream, second: Stream) -> Iterator[tuple[str, str]]:
    """Pieces of two streams at the same pace; empty ones where one has come to its end."""
    while True:
        one, other = next(first, None), next(second, None)
        if one is None and other is None:
            return
        yield one or "", other or ""


def _side_by_side(reply: Reply) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, expand=True, pad_edge=False, padding=(0, 2, 0, 0))
    for title, style in (("edited", "bold"), ("unedited", "dim")):
        table.add_column(title, ratio=1, header_style=style, style="" if title == "edited" else "dim")
    table.add_row(Text(reply.text.strip()), Text((reply.unedited or "").strip()))
    return table


def _status(room: Room, turn: Turn) -> str:
    """One line under a reply: which edits acted, how much they changed, how long it took."""
    reply = turn.reply
    said = []
    if turn.edits:
        named = [dial for dial in room.dials if dial.name in {edit["name"] for edit in turn.edits}]
        said.append(", ".join(map(str, named)))
        if reply.receipt is not None and reply.receipt.changed:
            said.append(f"changed {reply.receipt.changed} positions by {reply.receipt.relative_change:.0%}")
    else:
        said.append("no edit")
    if reply.tokens and reply.seconds:
        said.append(f"{reply.tokens} tokens, {reply.tokens / reply.seconds:.0f} a second")
    if reply.stopped:
        said.append("stopped")
    if reply.cut:
        said.append(f"cut at {reply.tokens} tokens")
    return f"[{'; '.join(said)}]"


class Flow:
    """Wraps text that comes in pieces between words. A word is held back until it is known to be whole.

    Scripts without blanks may break anywhere, and so do words that are longer than `_LONG`: these are not held back.
    """

    _LONG = 24

    def __init__(self, width: int):
        self._width = max(width - 1, self._LONG)
        self._column = 0
        self._word = ""
        # Whether the beginning of the word at hand was shown already.
        self._begun = False

    def add(self, piece: str) -> str:
        """What can be shown now."""
        return "".join(map(self._next, piece))

    def rest(self) -> str:
        """The last word."""
        return self._placed("")

    def _next(self, character: str) -> str:
        from rich.cells import cell_len

        if character in " \n\t":
            return self._placed(character)
        if unicodedata.category(character) == "Cc":
            # What steers the terminal is not for models to write.
            return ""
        if cell_len(character) == 2:
            before = self._placed("")
            self._word = character
            return before + self._placed("")
        self._word += character
        if self._begun or len(self._word) > self._LONG:
            shown = self._placed("")
            self._begun = True
            return shown
        return ""

    def _placed(self, after: str) -> str:
        """The word that was held back, on a new line where it does not fit, and the blank after it."""
        from rich.cells import cell_len

        word, size = self._word, cell_len(self._word)
        self._word, self._begun = "", False
        wraps = self._column > 0 and self._column + size > self._width
        self._column = size if wraps else self._column + size
        self._column = 0 if after == "\n" else self._column + len(after)
        return ("\n" if wraps else "") + word + after
