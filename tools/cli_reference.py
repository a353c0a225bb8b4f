"""Writes docs/reference/cli.md from the commands themselves; a test says when it is stale."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "cli.md"
HEAD = """# Command line

Written from the commands by `tools/cli_reference.py`; `optrode COMMAND --help` says the same.

Results go to standard output, notes and progress to standard error. `--json` prints one JSON object instead of tables.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | it could not be done; one line says why, see [Errors](errors/index.md) |
| 2 | the command was wrong |
| 130 | stopped by you |
"""


def reference() -> str:
    from optrode.cli.app import build

    program = build()
    return HEAD + "".join(f"\n{_section(name, command)}" for name, command in _commands(program.commands))


def _commands(commands: dict[str, Any], group: str = "") -> list[tuple[str, Any]]:
    """Every command with its name; those of a group have its name before theirs."""
    found: list[tuple[str, Any]] = []
    for name, command in commands.items():
        inner = getattr(command, "commands", None)
        found += _commands(inner, f"{group}{name} ") if inner is not None else [(f"{group}{name}", command)]
    return found


def _section(name: str, command: Any) -> str:
    arguments = [item for item in command.params if item.param_type_name == "argument"]
    options = [item for item in command.params if item.param_type_name == "option"]
    usage = " ".join(["optrode", name, *map(_placeholder, arguments), "[OPTIONS]"])
    says, example = _help(command.help)
    lines = [f"## optrode {name}", "", says, "", "```sh", usage, "```", ""]
    if example:
        lines += ["Example:", "", "```sh", example, "```", ""]
    rows = [(f"`{_placeholder(item)}`", item) for item in arguments]
    rows += [(" ".join(f"`{flag}`" for flag in [*item.opts, *item.secondary_opts]), item) for item in options]
    lines += ["| argument or option | what | default |", "|---|---|---|"]
    lines += [f"| {flags} | {_cell(item.help or '')} | {_default(item)} |" for flags, item in rows]
    return "\n".join(lines) + "\n"


def _help(text: str) -> tuple[str, str]:
    """What a command does, and its example, without markup."""
    says, _, example = text.partition("Example:")
    return re.sub(r"\s+", " ", says).strip(), re.sub(r"\[/?(bold)?\]", "", example).strip()


def _placeholder(argument: Any) -> str:
    name = argument.name.upper() + ("..." if argument.nargs != 1 else "")
    return name if argument.required else f"[{name}]"


def _default(item: Any) -> str:
    if item.required:
        return "must be given"
    value = item.default
    if value is None or value is False or value == [] or callable(value):
        return ""
    return f"`{', '.join(map(str, value)) if isinstance(value, list | tuple) else value}`"


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|").strip()


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
