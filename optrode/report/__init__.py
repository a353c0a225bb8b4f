"""Reports of a comparison: a table for the terminal and one HTML file that opens anywhere, without a network.

`write_report` makes the HTML, `read_report` gets the result back out of it, and `terminal.print_comparison` prints the
ranked table. What they take is the plain dictionary of a comparison, schema `optrode.comparison/1`; anything in it may
be absent or null and then reads "not measured".
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


def write_report(result: dict[str, Any], path: Path) -> Path:
    """Write `result` as one self-contained HTML file (about 1 MB, most of it the chart library) and return its path.

    The file makes no network request and forbids itself any; every text of `result` is escaped. It carries the result
    as JSON, in which NaN and infinity, which JSON does not have, become null. The file is whole or absent; an existing
    one is replaced. Costs about two seconds.

    Raises `BadInput` when `result` is no comparison result or holds something that JSON cannot.

    >>> import tempfile
    >>> result = {"schema": "optrode.comparison/1", "headline": "No method beats prompting."}
    >>> page = write_report(result, Path(tempfile.mkdtemp()) / "report.html")
    >>> read_report(page)["headline"]
    'No method beats prompting.'
    """
    from optrode.home import written_whole
    from optrode.report.page import render

    path = Path(path)
    # A lone surrogate (half of a character, as a byte-level tokenizer can leave it) has no UTF-8 form.
    content = render(result).encode("utf-8", errors="replace")
    with written_whole(path) as aside:
        aside.write_bytes(content)
    return path


def read_report(path: Path) -> dict[str, Any]:
    """The result that a report written by `write_report` carries. Runs nothing that the file contains.

    Raises `MissingFile` when there is no such file and `BadFile` when it carries no result.
    """
    import json
    import re

    from optrode.errors import BadFile, MissingFile
    from optrode.messages import one_line

    path = Path(path)
    if not path.is_file():
        raise MissingFile(f"there is no report at {path}; write one with write_report(result, path)")
    try:
        page = path.read_text(encoding="utf-8", errors="replace")
    except OSError as problem:
        raise BadFile(f"{path} cannot be read: {one_line(problem)}") from problem
    block = re.search(r'<script type="application/json" id="optrode-result">(.*?)</script>', page, re.DOTALL)
    try:
        result = json.loads(block.group(1)) if block else None
    except (ValueError, RecursionError):
        result = None
    if not isinstance(result, dict):
        raise BadFile(f"{path} carries no comparison result; give a report that optrode wrote")
    return result


__all__ = ["read_report", "write_report"]
