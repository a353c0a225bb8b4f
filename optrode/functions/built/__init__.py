"""Functions that are more than one expression of x: gates, pools, blends, splines, statistics, small networks.

Each file of this folder holds some of them, one small function each over the primitives of `primitives.py`; `@builds`
enters it under its name in the list, so there is no other list to edit.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pathlib import Path

from .registry import BuiltFunction, registered


@cache
def built_functions() -> dict[str, BuiltFunction]:
    """Every built function by its name in the list."""
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.stem not in ("__init__", "registry", "primitives"):
            import_module(f".{path.stem}", __name__)
    return registered()
