"""Turns optrode's docstrings into Markdown for the API pages: doctests become code, settings become lists."""

from __future__ import annotations

import re
from typing import Any

import griffe

_SETTING = re.compile(r"^([a-z_]+(?:, [a-z_]+)*): (.*)$")


class Docstrings(griffe.Extension):
    """Rewrites every docstring as it is loaded; the source stays as it is."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        if obj.docstring is not None:
            names = {parameter.name for parameter in getattr(obj, "parameters", [])} | set(obj.members)
            obj.docstring.value = markdown(obj.docstring.value, names)


def markdown(text: str, names: set[str]) -> str:
    """Doctests fenced; lines such as `layer: whose output is edited` of known names as list items.

    >>> print(markdown("Adds.\\n>>> 1 + 1\\n2", set()))
    Adds.
    <BLANKLINE>
    ```pycon
    >>> 1 + 1
    2
    ```
    """
    lines: list[str] = []
    fenced = listed = False
    for line in text.splitlines():
        starts = line.startswith(">>> ")
        if starts and not fenced:
            lines += ["", "```pycon"]
        if fenced and not line.strip():
            lines.append("```")
        fenced = starts or (fenced and bool(line.strip()))
        setting = None if fenced else _SETTING.match(line)
        if setting and set(setting[1].split(", ")) <= names:
            lines += ["", f"- `{setting[1]}`: {setting[2]}"]
            listed = True
            continue
        if listed and line.strip() and not line.startswith(" "):
            lines.append("")
            listed = False
        # Markdown would take `[example][token]` for a link.
        lines.append(line if fenced else line.replace("][", "]\\["))
    return "\n".join([*lines, "```"] if fenced else lines)
