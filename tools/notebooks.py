"""Runs the notebooks of the documentation anew and writes their outputs: `python tools/notebooks.py [NAME ...]`.

Each runs in an empty folder, in a kernel of its own, with the real models. What would differ from run to run and from
machine to machine (times of execution, versions, paths) does not stay. Needs `pip install -e ".[dev]"`.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "notebooks"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
# A file of more is slow to open and to compare.
MOST_BYTES = 500_000
MOST_LINES = 20


def executed(path: Path, timeout: int = 600) -> Any:
    """The notebook of a file with outputs as they come out now; the file stays as it is. Raises where a cell does."""
    import nbformat
    from nbclient import NotebookClient

    os.environ.setdefault("JUPYTER_PLATFORM_DIRS", "1")
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        where = {"metadata": {"path": folder}}
        quiet = ["--Application.log_level=40"]
        NotebookClient(
            notebook, timeout=timeout, kernel_name="python3", resources=where, extra_arguments=quiet
        ).execute()
    return notebook


def cleaned(notebook: Any) -> dict[str, Any]:
    """Cells with their outputs and nothing of the machine."""
    cells = []
    for number, cell in enumerate(notebook["cells"], 1):
        kept = {
            "cell_type": cell["cell_type"],
            "id": f"cell-{number:02}",
            "metadata": {},
            "source": _lines(cell["source"]),
        }
        if cell["cell_type"] == "code":
            kept |= {"execution_count": cell["execution_count"], "outputs": [_output(one) for one in shown(cell)]}
        cells.append(kept)
    metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def shown(cell: Any) -> list[Any]:
    """The outputs of a cell that say something: what was printed in pieces is one, and a bar that is done is none."""
    found: list[Any] = []
    for one in cell["outputs"]:
        if one["output_type"] == "stream":
            last = found[-1] if found and found[-1].get("name") == one["name"] else None
            if last is None:
                found.append({**one, "text": "".join(one["text"])})
            else:
                last["text"] += "".join(one["text"])
        elif one["output_type"] == "error" or any(one.get("data", {}).values()):
            found.append(one)
    return found


def _output(output: Any) -> dict[str, Any]:
    kept = {key: value for key, value in output.items() if key not in ("transient",)}
    if "text" in kept:
        kept["text"] = _lines(kept["text"])
    if "data" in kept:
        kept["data"] = {kind: _lines(_first(value, kept["data"]) if kind == "text/plain" else value)
                        for kind, value in kept["data"].items()}  # fmt: skip
        kept["metadata"] = {}
    return kept


def _first(text: str, data: dict[str, Any]) -> str:
    """The first lines of a text that stands behind HTML: it may hold every number of an array."""
    lines = text.splitlines(keepends=True)
    return text if "text/html" not in data or len(lines) <= MOST_LINES else "".join([*lines[:MOST_LINES], "..."])


def _lines(text: Any) -> Any:
    return text.splitlines(keepends=True) if isinstance(text, str) else text


def numbers(notebook: Any) -> list[list[float]]:
    """The numbers that each code cell printed, in order: what two runs are compared by."""
    found = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            texts = ["".join(one.get("text") or one.get("data", {}).get("text/plain", "")) for one in shown(cell)]
            said = re.findall(r"(?<![\w.])[-−]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?", "\n".join(texts))
            found.append([float(one.replace(",", "").replace("−", "-")) for one in said])
    return found


def main(names: list[str]) -> None:
    for path in sorted(FOLDER.glob("*.ipynb")):
        if names and path.stem not in names:
            continue
        text = json.dumps(cleaned(executed(path)), ensure_ascii=False, indent=1) + "\n"
        path.write_text(text, encoding="utf-8")
        print(f"{path.name}: {len(text.encode()) / 1000:.0f} kB")
        if len(text.encode()) > MOST_BYTES:
            sys.exit(f"{path.name} is larger than {MOST_BYTES / 1000:.0f} kB: show less")


if __name__ == "__main__":
    main(sys.argv[1:])
