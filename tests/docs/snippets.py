"""Runs the Python blocks of a documentation page, one after the other, in one namespace.

A mark is an HTML comment on the line before a fence:

- `<!-- slow -->`: run with the slow tests only, and with it what follows on the page;
- `<!-- no-run -->`: never run;
- `<!-- raises: NAME -->`: must raise that error of `optrode.errors`;
- `<!-- file: PATH -->`: the text of a file, which another test puts in its place.

A `text` block right after a Python block is its output, where `...` stands for anything. An error's output is its class
and its line. `python tests/docs/snippets.py PAGE...` runs pages with the real models and writes their outputs.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FENCE = re.compile(r"^( *)```(\S*).*$")
_MARK = re.compile(r"^ *<!-- *([a-z-]+)(?:: *(.+?))? *-->$")
_MARKS = ("slow", "no-run", "raises", "file")
_CHECKER = doctest.OutputChecker()
_OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, text, marks, and the line numbers of its fences, from 0."""

    language: str
    text: str
    marks: dict[str, str]
    first: int
    last: int


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page. Raises `ValueError` for a mark that does not exist."""
    lines = page.read_text(encoding="utf-8").splitlines()
    found, number = [], 0
    while number < len(lines):
        fence = _FENCE.match(lines[number])
        if not fence:
            number += 1
            continue
        last = next(end for end in range(number + 1, len(lines)) if lines[end].strip() == "```")
        text = textwrap.dedent("\n".join(lines[number + 1 : last]))
        found.append(Block(fence[2], text, _marks(lines, number), number, last))
        number = last + 1
    return found


def _marks(lines: list[str], fence: int) -> dict[str, str]:
    marks = {}
    for line in reversed(lines[:fence]):
        mark = _MARK.match(line)
        if not mark:
            break
        if mark[1] not in _MARKS:
            raise ValueError(f"{mark[1]} is no mark: use {', '.join(_MARKS)}")
        marks[mark[1]] = mark[2] or ""
    return marks


def examples(page: Path) -> Iterator[tuple[Block, Block | None]]:
    """The Python blocks that are run, each with the block of its output."""
    lines = page.read_text(encoding="utf-8").splitlines()
    found = blocks(page)
    for block, after in zip(found, [*found[1:], None], strict=False):
        if block.language != "python" or "no-run" in block.marks or "file" in block.marks:
            continue
        follows = after is not None and after.language == "text" and not "".join(lines[block.last + 1 : after.first])
        yield block, after if follows else None


def run(block: Block, page: Path, namespace: dict[str, Any]) -> str:
    """Run one block and give what it printed. Raises `AssertionError` where an error was promised and none came."""
    wanted, printed = block.marks.get("raises"), io.StringIO()
    # Blank lines in front make tracebacks name the page's own line numbers.
    code = compile("\n" * (block.first + 1) + block.text, str(page), "exec")
    with contextlib.redirect_stdout(printed):
        try:
            exec(code, namespace)
        except Exception as problem:
            if type(problem).__name__ != wanted:
                raise
            return f"{printed.getvalue()}{wanted}: {problem}\n"
    assert wanted is None, f"{page.name}:{block.first + 1} raised no {wanted}"
    return printed.getvalue()


def agrees(shown: str, printed: str) -> bool:
    return _CHECKER.check_output(f"{shown}\n", printed or "\n", _OPTIONS)


def rewrite(page: Path) -> None:
    """Run a page with the real models and put what it prints into its `text` blocks."""
    namespace: dict[str, Any] = {}
    lines = page.read_text(encoding="utf-8").splitlines()
    outputs: list[tuple[Block, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for block, shown in examples(page):
            printed = run(block, page, namespace)
            if shown is not None and not ("..." in shown.text and agrees(shown.text, printed)):
                outputs.append((shown, printed))
    for shown, printed in reversed(outputs):
        lines[shown.first + 1 : shown.last] = [line.rstrip() for line in printed.rstrip().splitlines()]
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    for page in [Path(name).resolve() for name in sys.argv[1:]]:
        rewrite(page)
