"""What a chat leaves on disk: the conversation as JSON, or the edits as they are set now as one edit file."""

from __future__ import annotations

import json
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import BadInput, NotSupported
from ...home import written_whole
from ...version import __version__

if TYPE_CHECKING:
    from ...edits.base import Edit
    from .room import Dial, Room

FORMAT = "optrode.chat/1"


def keep(room: Room, file: Path) -> str:
    """Write the conversation, or with a name that ends in `.edit` the edits; whole or not at all. Says what it wrote.

    Raises `BadInput` where there is nothing to write, or where the file is there and is no chat; edit files are never
    written over.
    """
    if file.suffix == ".edit":
        if file.exists():
            raise BadInput(f"there is a file '{file}' already: name another")
        combined(room.acting).save(file)
        return f"saved the edits as they are now to {file}: {', '.join(map(str, room.acting))}"
    if not room.turns:
        raise BadInput("nothing was said yet, so there is nothing to save")
    if file.is_dir() or (file.exists() and not _is_chat(file)):
        raise BadInput(f"'{file}' is there already and is no saved chat: name another file")
    file.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(file) as aside:
        aside.write_text(json.dumps(_as_dict(room), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return f"saved {len(room.turns)} turn{'s' if len(room.turns) != 1 else ''} to {file}"


def combined(dials: list[Dial]) -> Edit:
    """The edits that are on, at their strengths, as one: each sees what the one before it left.

    Raises `BadInput` where none is on, `NotSupported` where they are of kinds that do not go into one file.
    """
    if not dials:
        raise BadInput("no edit is on, so there is nothing to save: turn one on with /on NAME")
    edits = [dial.now() for dial in dials]
    kinds = {edit.kind for edit in edits}
    if len(edits) > 1 and (len(kinds) > 1 or not kinds <= {"site", "adapter"}):
        listed = ", ".join(f"{dial.name} ({dial.edit.kind})" for dial in dials)
        raise NotSupported(f"one file holds site edits or adapters, not {listed}: turn some off and save them apart")
    return reduce((lambda a, b: a + b) if kinds == {"adapter"} else (lambda a, b: a >> b), edits)


def _is_chat(file: Path) -> bool:
    try:
        return json.loads(file.read_text(encoding="utf-8")).get("format") == FORMAT
    except (ValueError, OSError, AttributeError):
        return False


def _as_dict(room: Room) -> dict[str, Any]:
    turns = []
    for turn in room.turns:
        told: dict[str, Any] = {"user": turn.user, "reply": turn.reply.text}
        if turn.reply.unedited is not None:
            told["unedited"] = turn.reply.unedited
        if turn.reply.stopped:
            told["stopped"] = True
        turns.append({**told, "edits": turn.edits})
    front = [{"role": "system", "content": room.system}] if room.system else []
    messages = [*front, *room.messages()]
    return {"format": FORMAT, "version": __version__, "model": room.host.name, "messages": messages, "turns": turns}
