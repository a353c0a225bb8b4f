"""Building the index from what there is: methods in the source, parity tests, results of studies.

Needs the repository, since tests and results are no part of the package. `tools/catalogue.py` runs it; a test fails
when the index that is committed differs from what this gives.
"""

from __future__ import annotations

import ast
import csv
import json
from collections import defaultdict
from importlib import resources
from pathlib import Path
from typing import Any

from ..errors import BadFile
from ..home import written_whole
from ..parts.discovery import Found, methods_of
from .rows import INDEX

SCHEMA = "optrode.catalogue/1"


def build(root: Path) -> dict[str, Any]:
    """The index of the repository at `root`."""
    jobs = {row["id"]: row for row in table("jobs.tsv")}
    rows = table("rows.tsv")
    methods, parity, studies = _methods(root), parity_tests(root / "tests"), _studies(root / "studies" / "results")
    ids = {row["id"] for row in rows}
    stray = sorted((set(parity) | set(studies)) - ids - set(_baselines(methods, ids)))
    if stray:
        raise BadFile(f"'{stray[0]}' has a parity test or a study, but is no row of the catalogue: check its id")
    return {
        "schema": SCHEMA,
        "systems": [
            _row(row, jobs[row["id"]], methods.get(row["id"], []), parity.get(row["id"], []), studies.get(row["id"]))
            for row in rows
        ],
    }


def text(index: dict[str, Any]) -> str:
    return json.dumps(index, indent=1, ensure_ascii=False) + "\n"


def write(index: dict[str, Any], root: Path) -> Path:
    path = root / "optrode" / "catalogue" / INDEX
    with written_whole(path) as aside:
        aside.write_text(text(index), encoding="utf-8")
    return path


def table(name: str) -> list[dict[str, str]]:
    """A table of the package, one dictionary a line."""
    lines = (resources.files(__package__) / name).read_text(encoding="utf-8").splitlines()
    return list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))


def parity_tests(folder: Path) -> dict[str, list[str]]:
    """Row id -> the tests that carry `@pytest.mark.parity(id)`, as file::name. Nothing is imported."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(folder.rglob("test_*.py")):
        source = path.read_text(encoding="utf-8")
        if "mark.parity" not in source:
            continue
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                for id in _parity_marks(node):
                    found[id].append(f"{path.relative_to(folder.parent).as_posix()}::{node.name}")
    return dict(found)


def _parity_marks(node: ast.FunctionDef) -> list[str]:
    return [
        argument.value
        for call in node.decorator_list
        if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("mark.parity")
        for argument in call.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    ]


def _methods(root: Path) -> dict[str, list[Found]]:
    """Row id -> its methods, over every folder of the package that has a protocol."""
    found: dict[str, list[Found]] = defaultdict(list)
    for protocol in sorted((root / "optrode").rglob("protocol.py")):
        folder = protocol.parent
        package = ".".join(folder.relative_to(root).parts)
        for method in methods_of(package, str(folder)).values():
            found[method.id].append(method)
    return dict(found)


def _baselines(methods: dict[str, list[Found]], ids: set[str]) -> list[str]:
    """Methods that are no row: what the rows are compared with."""
    return [id for id in methods if id not in ids]


def _studies(folder: Path) -> dict[str, dict[str, Any]]:
    found = {}
    for path in sorted(folder.glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        found[result["id"]] = {
            "verdict": result["verdict"],
            "full": result["full"],
            "seconds": result["record"]["seconds"],
        }
    return found


def _row(
    row: dict[str, str], job: dict[str, str], methods: list[Found], parity: list[str], study: dict[str, Any] | None
) -> dict[str, Any]:
    parts = {"method": bool(methods), "parity test": bool(parity), "study": study is not None}
    missing = [name for name, there in parts.items() if not there]
    return {
        "id": row["id"],
        "family": row["family"],
        "title": row["title"],
        "job": job["job"],
        "paper": job["paper"],
        "status": "works" if not missing else "planned" if len(missing) == len(parts) else "partial",
        "missing": missing,
        "entry_points": [f"{method.module.rpartition('.')[0]}.{method.name}" for method in methods],
        "parity": parity,
        "study": study,
    }
