"""Lines that begin with a slash. Each command is a function of the room, what follows its name, and the screen."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ...edits.anatomy import brief
from ...errors import BadInput, UnknownName, did_you_mean
from .keep import keep
from .room import Room, Turn

if TYPE_CHECKING:
    from .screen import Screen


class Quit(Exception):
    """The chat is over."""


class Command(NamedTuple):
    usage: str
    says: str
    run: Callable[[Room, str, Screen], None]


def run(room: Room, line: str, screen: Screen) -> None:
    """Run a line such as `/strength cheerful 1.5`. Raises `UnknownName` with the nearest commands, and `Quit`."""
    name, _, rest = line.removeprefix("/").partition(" ")
    command = COMMANDS.get(name.lower())
    if command is None:
        nearest = did_you_mean(f"/{name}", [f"/{known}" for known in COMMANDS])
        raise UnknownName(f"there is no command '/{name}': {nearest}")
    command.run(room, rest.strip(), screen)


def _help(room: Room, rest: str, screen: Screen) -> None:
    screen.table([(command.usage, command.says) for command in COMMANDS.values()])
    screen.say(
        'A line that begins with // is said with one slash; lines between """ and """ are one turn. '
        "Ctrl-C stops a reply, Ctrl-D ends the chat."
    )


def _edits(room: Room, rest: str, screen: Screen) -> None:
    if not room.dials:
        screen.say("no edit: begin the chat with --edit FILE")
        return
    rows = [(dial.name, "on" if dial.on else "off", f"x{dial.strength:g}", brief(dial.edit)) for dial in room.dials]
    screen.table(rows)


def _explain(room: Room, rest: str, screen: Screen) -> None:
    for dial in [room.dial(rest)] if rest else room.dials:
        screen.say(f"{dial.name}: {dial.now().explain(room.host)}")


def _strength(room: Room, rest: str, screen: Screen) -> None:
    words = rest.split()
    if len(words) == 1 and len(room.dials) == 1:
        words.insert(0, room.dials[0].name)
    if len(words) != 2:
        raise BadInput("write /strength NAME 1.5; NAME may be left out where there is one edit")
    dial = room.dial(words[0])
    try:
        strength = float(words[1])
    except ValueError:
        strength = math.nan
    if not math.isfinite(strength):
        raise BadInput(f"'{words[1]}' is no number: write /strength {dial.name} 1.5")
    dial.turn(strength)
    dial.on = True
    screen.say(f"{dial} from the next turn on; /again answers the last one anew")


def _switch(on: bool) -> Callable[[Room, str, Screen], None]:
    def switch(room: Room, rest: str, screen: Screen) -> None:
        if not room.dials:
            raise BadInput("there is no edit to switch: begin the chat with --edit FILE")
        for dial in [room.dial(name) for name in rest.split()] or room.dials:
            dial.on = on
        screen.say(_state(room))

    return switch


def _state(room: Room) -> str:
    said = [str(dial) if dial.on else f"{dial.name} off" for dial in room.dials]
    return ", ".join(said)


def _side(room: Room, rest: str, screen: Screen) -> None:
    room.side = _toggled(room.side, rest)
    if room.side:
        screen.say("side by side with the unedited model; the conversation goes on with the edited reply")
    else:
        screen.say("the edited model alone")


def _toggled(before: bool, word: str) -> bool:
    if word not in ("", "on", "off"):
        raise BadInput(f"'{word}' is neither on nor off")
    return not before if not word else word == "on"


def _again(room: Room, rest: str, screen: Screen) -> None:
    last = _last(room)
    room.turns.pop()
    try:
        screen.turn(room, last.user)
    except BaseException:
        room.turns.append(last)
        raise


def _undo(room: Room, rest: str, screen: Screen) -> None:
    last = _last(room)
    room.turns.pop()
    screen.say(f"taken back: {last.user!r} and its reply")


def _last(room: Room) -> Turn:
    if not room.turns:
        raise BadInput("nothing was said yet")
    return room.turns[-1]


def _reset(room: Room, rest: str, screen: Screen) -> None:
    room.turns.clear()
    screen.say("a new conversation; edits and system prompt stay as they are")


def _system(room: Room, rest: str, screen: Screen) -> None:
    if rest:
        room.system = None if rest == "off" else rest
    screen.say(f"system prompt: {room.system}" if room.system else "no system prompt")


def _save(room: Room, rest: str, screen: Screen) -> None:
    if not rest:
        raise BadInput("write /save FILE: chat.json takes the conversation, mine.edit the edits as they are set now")
    screen.say(keep(room, Path(rest).expanduser()))


def _quit(room: Room, rest: str, screen: Screen) -> None:
    raise Quit


COMMANDS: dict[str, Command] = {
    "edits": Command("/edits", "the edits, their strengths, and whether they are on", _edits),
    "strength": Command("/strength NAME 1.5", "turn an edit up or down; 1 is as its file has it", _strength),
    "on": Command("/on [NAME]", "switch an edit on, or all", _switch(True)),
    "off": Command("/off [NAME]", "switch an edit off, or all", _switch(False)),
    "side": Command("/side", "show the unedited model's reply beside the edited one's, or no longer", _side),
    "again": Command("/again", "answer the last turn anew, with the edits as they are now", _again),
    "undo": Command("/undo", "take the last turn back", _undo),
    "reset": Command("/reset", "begin a new conversation", _reset),
    "system": Command("/system TEXT", "set the system prompt; /system off removes it", _system),
    "explain": Command("/explain [NAME]", "what an edit does, at the strength it has now", _explain),
    "save": Command("/save FILE", "write the conversation as JSON; to NAME.edit, the edits as they are set now", _save),
    "help": Command("/help", "this list", _help),
    "quit": Command("/quit", "end the chat", _quit),
}
