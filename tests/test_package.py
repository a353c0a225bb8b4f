"""The shape of the house: quick import, few dependencies, imports that point down the layers."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import optrode as op

PACKAGE = Path(op.__file__).parent
ROOT = PACKAGE.parent
HEAVY = ("torch", "transformers", "numpy", "pandas", "sklearn", "altair", "typer", "rich", "xarray")

# From the bottom up; a module may import its own layer and those below.
LAYERS = (
    ("errors", "messages", "version", "home", "notebook", "gguf_format"),
    ("sites", "aliases", "batches", "positions", "activations", "maps", "metrics", "edits"),
    ("layouts", "sources", "offloaded", "encoding", "pictures", "towers"),
    ("table", "identity", "lookup", "host", "tree"),
    ("engine",),
    ("model", "scores"),
    ("stats", "data", "store"),
    ("parts",),
    ("steering", "guard", "massive", "retrieval", "functions", "dictionaries"),
    ("catalogue",),
    ("studies",),
    ("compare", "function_comparison", "report", "lm_eval"),
    ("cli", "__main__"),
)
FAMILIES = LAYERS[8]


def test_importing_loads_nothing_heavy() -> None:
    code = f"import optrode, sys; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_at_most_twenty_core_dependencies() -> None:
    listed = (ROOT / "pyproject.toml").read_text().split("dependencies = [")[1].split("]")[0]
    assert 0 < sum(line.strip().startswith('"') for line in listed.splitlines()) <= 20


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own == "__init__":
        return
    assert own in _rank, f"{own} has no layer: add it to LAYERS"
    for name, line in _imports(path):
        assert _rank[name] <= _rank[own], f"{path.name}:{line} imports {name}, which lies above {own}"
        assert not (own in FAMILIES and name in FAMILIES and name != own), f"{own} imports another family: {name}"


def test_every_public_name_is_there() -> None:
    for name in op.__all__:
        assert getattr(op, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        op.nothing  # noqa: B018


_rank = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}


def _imports(path: Path) -> list[tuple[str, int]]:
    """Parts of optrode that a file imports at run time, with the line; type checking alone may look up."""
    package = ["optrode", *path.relative_to(PACKAGE).parts[:-1]]
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            whole = [*base, *(node.module or "").split(".")] if node.module else base
            targets = [[*whole, alias.name] for alias in node.names]
            found += [(target[1], node.lineno) for target in targets if target[0] == "optrode" and target[1] in _rank]
    return found
