"""Reads lines until there are no more: turns, and commands that begin with a slash."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from ...errors import OptrodeError
from .. import common
from . import commands
from .room import Room
from .screen import Plain, Screen, Terminal

PROMPT = "> "
_FENCE = '"""'


def talk(room: Room) -> int:
    """Hold the conversation: with a person at a terminal, or with lines from a pipe. How many of these failed."""
    by_hand = sys.stdin.isatty()
    screen: Screen = Plain()
    if by_hand:
        console = common.console()
        screen = Terminal(console) if console.is_terminal else screen
        _greet(room, screen)
        _complete(room)
    for line in _turns(_typed(screen) if by_hand else _piped()):
        try:
            try:
                _take(room, line, screen)
            except OptrodeError as problem:
                screen.trouble(problem)
        except KeyboardInterrupt:
            if not by_hand:
                raise
            screen.say("stopped")
        except commands.Quit:
            break
    # A person saw it, and went on.
    return 0 if by_hand else screen.failed


def _take(room: Room, line: str, screen: Screen) -> None:
    if line.startswith("/") and not line.startswith("//"):
        commands.run(room, line.strip(), screen)
    else:
        screen.turn(room, line.removeprefix("/") if line.startswith("//") else line)


def _greet(room: Room, screen: Screen) -> None:
    named = f", with {', '.join(map(str, room.dials))}" if room.dials else ""
    screen.say(f"Talking with {room.host.name}{named}. /help lists the commands; Ctrl-C stops a reply, Ctrl-D ends.")


def _piped() -> Iterator[str]:
    for line in sys.stdin:
        yield line.rstrip("\r\n")


def _typed(screen: Screen) -> Iterator[str]:
    interrupted = False
    while True:
        try:
            if interrupted:
                interrupted = False
                print()
                screen.say("Ctrl-D or /quit ends the chat")
            yield input(PROMPT)
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            interrupted = True


def _turns(lines: Iterator[str]) -> Iterator[str]:
    """Lines that hold anything; those between two fences of three quotes as one turn."""
    for line in lines:
        if line.startswith(_FENCE):
            yield from _fenced(line.removeprefix(_FENCE), lines)
        elif line.strip():
            yield line


def _fenced(line: str, lines: Iterator[str]) -> Iterator[str]:
    kept = []
    while not line.rstrip().endswith(_FENCE):
        kept.append(line)
        following = next(lines, None)
        if following is None:
            break
        line = following
    else:
        kept.append(line.rstrip().removesuffix(_FENCE))
    text = "\n".join(kept).strip("\n")
    if text.strip():
        yield text


def _complete(room: Room) -> None:
    """Commands and names of edits are completed with the tab key, where the terminal's line editor is there."""
    try:
        import readline
    except ImportError:
        return

    def complete(text: str, state: int) -> str | None:
        if text.startswith("/"):
            words = [f"/{name} " for name in commands.COMMANDS]
        else:
            words = [f"{dial.name} " for dial in room.dials] if readline.get_line_buffer().startswith("/") else []
        return [*(word for word in words if word.startswith(text)), None][state]

    readline.set_completer(complete)
    readline.set_completer_delims(" ")
    readline.parse_and_bind("tab: complete")
