"""`optrode rerun FILE`: repeat the run that a result came from, by its run record."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import typer

from ..errors import BadFile
from ..messages import plain, shown
from . import common

# A file is not trusted: only commands that compute from named data may be repeated, and never into a place it names.
REPEATABLE = ("compare", "study")
OWN_OPTIONS = ("--out", "-o", "--json")


def register(app: typer.Typer) -> None:
    @app.command("rerun")
    def rerun(
        file: Path = typer.Argument(..., help="A result.json, report.html or study result."),
        out: Path = typer.Option(Path("optrode-rerun"), "--out", "-o", help="Folder for the new result."),
        show: bool = typer.Option(False, "--show", help="Only print the command."),
        as_json: bool = common.Json,
    ) -> None:
        """Repeat a run from the record that every result carries: same command, same seed.

        Example: [bold]optrode rerun optrode-steering-sentiment/result.json[/]
        """
        from . import run

        record = read_record(file)
        arguments = checked(record.get("arguments"), file)
        warn_of_versions(record)
        # A file is not trusted with the terminal either.
        common.note(plain("optrode " + shlex.join(arguments), 2000))
        if show:
            return
        code = run([*arguments, "--out", str(out), *(["--json"] if as_json else [])])
        if code:
            raise typer.Exit(code)


def read_record(file: Path) -> dict[str, Any]:
    from ..compare import read_result

    record = read_result(file).get("record")
    if not isinstance(record, dict):
        raise BadFile(f"'{file.name}' carries no run record: give a result that optrode wrote")
    return record


def checked(arguments: Any, file: Path) -> list[str]:
    """The recorded arguments, if they are a command that may be repeated."""
    if not isinstance(arguments, list) or not arguments or not all(isinstance(part, str) for part in arguments):
        raise BadFile(
            f"the run record of '{file.name}' names no command: it was made from Python, not the command line"
        )
    if arguments[0] not in REPEATABLE or any(_is_own(part) for part in arguments):
        raise BadFile(
            f"the run record of '{file.name}' holds a command that rerun does not repeat: {shown(arguments[0])}"
        )
    return arguments


def _is_own(part: str) -> bool:
    """Whether an argument is an option that rerun gives, or ends the options so that it could give none."""
    return part == "--" or part.split("=")[0] in OWN_OPTIONS or (part.startswith("-o") and not part.startswith("--"))


def warn_of_versions(record: dict[str, Any]) -> None:
    from ..parts.record import versions

    then, now = record.get("versions"), versions()
    if not isinstance(then, dict):
        return
    changed = [
        f"{plain(name)} {plain(str(was), 20)} -> {now.get(name, 'absent')}"
        for name, was in then.items()
        if was != now.get(name)
    ][:20]
    if changed:
        common.note(f"versions differ from the recorded ones: {', '.join(changed)}")
