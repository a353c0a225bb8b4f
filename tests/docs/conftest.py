from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


def load_file(path: Path) -> ModuleType:
    """A Python file that is in no package, as a module."""
    spec = importlib.util.spec_from_file_location(f"docs_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def empty_memory() -> None:
    """Pages that write to `memory://`, which lasts as long as the process, find nothing there of another run."""
    from fsspec.implementations.memory import MemoryFileSystem

    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


@pytest.fixture(scope="session")
def snippets() -> ModuleType:
    """The runner of the pages' blocks, `snippets.py`."""
    return load_file(Path(__file__).with_name("snippets.py"))


@pytest.fixture(scope="session")
def tool():
    """A script of `tools/` by its name."""
    return lambda name: load_file(ROOT / "tools" / f"{name}.py")
