"""Prompts and replies as JSONL: an object a line, whole lines only, and a run that was stopped can go on."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BadInput, MissingFile
from ..messages import shown
from . import common

if TYPE_CHECKING:
    from ..edits.base import Edit
    from ..model import Model

STANDARD = "-"


@dataclass(frozen=True)
class Line:
    """One prompt with all that its line said. `edits` and `strength` are None where the command's own count."""

    number: int
    said: dict[str, Any]
    prompt: Any
    edits: tuple[str, ...] | None = None
    strength: float | None = None

    @property
    def has_own(self) -> bool:
        return self.edits is not None or self.strength is not None


def read_lines(source: Path) -> list[Line]:
    """The prompts of a JSONL file, or of standard input for `-`.

    Raises `MissingFile`, and `BadInput` with the number of a line that is wrong.
    """
    if str(source) != STANDARD and not source.is_file():
        raise MissingFile(f"there is no file '{source}': give JSONL with a prompt a line, or - for standard input")
    try:
        whole = sys.stdin.read() if str(source) == STANDARD else source.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError) as problem:
        raise BadInput(f"'{source}' cannot be read, or is no text in UTF-8: save it as such") from problem
    # Not `splitlines`: texts may hold line separators of other kinds.
    lines = [_line(text, number) for number, text in enumerate(whole.split("\n"), 1) if text.strip()]
    if not lines:
        raise BadInput(f"'{source}' holds no prompt: it is empty")
    return lines


def lines_of(prompts: Sequence[Any]) -> list[Line]:
    """Prompts that came in another way, as lines."""
    names = ["prompt" if isinstance(prompt, str) else "messages" for prompt in prompts]
    pairs = enumerate(zip(names, prompts, strict=True), 1)
    return [Line(number, {name: prompt}, prompt) for number, (name, prompt) in pairs]


def _line(text: str, number: int) -> Line:
    prompt = common.prompt_of(text, number)
    said = json.loads(text)
    if not isinstance(said, dict):
        return Line(number, {"prompt" if isinstance(said, str) else "messages": said}, prompt)
    named, strength = said.get("edits", said.get("edit")), said.get("strength")
    edits = [named] if isinstance(named, str) else named
    if edits is not None and not (isinstance(edits, list) and all(isinstance(path, str) for path in edits)):
        raise BadInput(f"line {number}: edits must be the path of an edit file, or a list of paths")
    if strength is not None and (isinstance(strength, bool) or not isinstance(strength, int | float)):
        raise BadInput(f"line {number}: strength must be a number, not {shown(strength)}")
    # Whole numbers of any length are read, and no float holds the longest ones.
    if strength is not None and not abs(strength) <= sys.float_info.max:
        raise BadInput(f"line {number}: strength must be a finite number, not {shown(strength)}")
    return Line(number, said, prompt, None if edits is None else tuple(edits), strength)


# Edits ---------------------------------------------------------------------------------------------------------------


class Edits:
    """The edits of a command and of single lines, each file read once."""

    def __init__(self, paths: Sequence[Path], strength: float):
        self._loaded: dict[str, Edit] = {}
        self._paths = [str(path) for path in paths]
        self._strength = strength
        self.common = [self._load(path) for path in self._paths]

    def load(self, lines: Sequence[Line]) -> list[Edit]:
        """Read the files that lines name, before anything runs; gives all edits."""
        for line in lines:
            for path in line.edits or ():
                edit = self._load(path)
                if edit.kind != "site":
                    raise BadInput(
                        f"line {line.number}: '{path}' is a {edit.kind} edit, which is for all prompts: use --edit"
                    )
        return list(self._loaded.values())

    def fingerprint(self) -> list[str]:
        """What the files held."""
        return [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in self._loaded]

    def of(self, lines: Sequence[Line]) -> list[Edit]:
        """What to enter for these prompts together."""
        if not any(line.has_own for line in lines):
            return [edit for edit in (scaled(edit, self._strength) for edit in self.common) if edit is not None]
        from ..edits.rows import by_row

        others = [scaled(edit, self._strength) for edit in self.common if edit.kind != "site"]
        return [*(edit for edit in others if edit is not None), by_row([self._row(line) for line in lines])]

    def _row(self, line: Line) -> Any:
        strength = self._strength if line.strength is None else line.strength
        paths = self._paths if line.edits is None else line.edits
        found: Any = None
        for edit in (self._loaded[path] for path in paths):
            if edit.kind == "site" and strength:
                found = edit * strength if found is None else found >> edit * strength
        return found

    def _load(self, path: str) -> Edit:
        from ..edits.file import load_edit

        if path not in self._loaded:
            self._loaded[path] = load_edit(path)
        return self._loaded[path]


def scaled(edit: Edit, strength: float) -> Edit | None:
    """The edit at a strength; None where strength 0 turns off an edit that cannot be scaled, such as a prompt."""
    if edit.kind == "site":
        return edit * strength
    if strength == 0:
        return None
    return edit if strength == 1 else edit * strength


# Writing -------------------------------------------------------------------------------------------------------------


def write_replies(
    host: Model, lines: Sequence[Line], out: Path, edits: Edits, options: dict[str, Any], rows: int, beside: bool
) -> str:
    """Append a reply for every line, `rows` of them at once; gives what was done, in words.

    Each line is what it said with `completion`, `unedited` if that was asked for, and `run`, which is the same for all
    replies that were written with the same settings. Replies of the same run that are there already are kept.
    """
    run = _run(host, edits, options, rows, beside)
    done = 0 if str(out) == STANDARD else _kept(out, lines, run, rows)
    steps = range(done, len(lines), rows)
    with closing(_tracked(steps)) as starts:
        for start in starts:
            part = lines[start : start + rows]
            replies = _replies(host, part, edits, options, beside)
            texts = [
                json.dumps({**line.said, **reply, "run": run}, ensure_ascii=False)
                for line, reply in zip(part, replies, strict=True)
            ]
            _append(out, "".join(text + "\n" for text in texts))
    where = "" if str(out) == STANDARD else f" to {out}"
    return f"{len(lines) - done} replies written{where}" + (f", {done} were there" if done else "")


def _tracked(steps: range) -> Any:
    from ..engine.progress import track

    return track(steps, "writing replies")


def _replies(
    host: Model, lines: Sequence[Line], edits: Edits, options: dict[str, Any], beside: bool
) -> Iterator[dict[str, str]]:
    prompts, active = [line.prompt for line in lines], edits.of(lines)
    if active:
        with host.edited(*active):
            found = host.completions(prompts, **options)
    else:
        found = host.completions(prompts, **options)
    plain = host.completions(prompts, **options) if beside and active else found
    for one, other in zip(found, plain, strict=True):
        yield {"completion": one.text, "unedited": other.text} if beside else {"completion": one.text}


def _append(out: Path, text: str) -> None:
    """Whole lines at once, on the disk when this returns."""
    if str(out) == STANDARD:
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    with open(out, "ab") as file:
        file.write(text.encode("utf-8"))
        file.flush()
        os.fsync(file.fileno())


def _run(host: Model, edits: Edits, options: dict[str, Any], rows: int, beside: bool) -> str:
    """A short name for the settings."""
    settings = [host.fingerprint, edits.fingerprint(), [str(edits._paths), edits._strength], rows, beside]
    text = json.dumps([settings, options], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _kept(out: Path, lines: Sequence[Line], run: str, rows: int) -> int:
    """How many replies are there from the same run; what a crash left half-written is cut off.

    Raises `BadInput` where the file holds anything else.
    """
    if out.is_dir():
        raise BadInput(f"'{out}' is a folder: name a file in it, such as {out}/replies.jsonl")
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        return 0
    whole = out.read_bytes().splitlines(keepends=True)
    if whole and not whole[-1].endswith(b"\n"):
        whole.pop()
    for number, text in enumerate(whole):
        if number >= len(lines) or not _is_reply(text, lines[number], run):
            raise BadInput(
                f"'{out}' holds other lines than this run writes (line {number + 1}): name another file, or remove it"
            )
    # Prompts that are written together are drawn together, so they are also written again together.
    done = len(whole) if len(whole) == len(lines) else len(whole) // rows * rows
    os.truncate(out, sum(map(len, whole[:done])))
    return done


def _is_reply(text: bytes, line: Line, run: str) -> bool:
    try:
        found = json.loads(text)
    except ValueError:
        return False
    own = {name: value for name, value in line.said.items() if name not in ("completion", "unedited", "run")}
    return isinstance(found, dict) and found.get("run") == run and all(found.get(key) == own[key] for key in own)
