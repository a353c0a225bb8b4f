"""Activation functions: the published ones, from a list of formulas, and any of your own.

`get` finds one by name, `from_formula` makes one; both give a `Function`. `swap` puts one in the place of another in a
network, as an edit; `heal` trains a small adapter to go with it.
Methods of papers are one file each in `methods`, found by their `id`.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

from ..parts.discovery import lazy_family

_NAMES = {
    "Activation": "module",
    "Function": "protocol",
    "FUNCTIONS": "parser",
    "Healed": "healing",
    "Edge": "chaos",
    "Measured": "real_networks",
    "activations": "swapping",
    "edge": "chaos",
    "Signal": "gains",
    "from_formula": "of_formula",
    "gain": "gains",
    "get": "zoo",
    "heal": "healing",
    "maps": "gains",
    "measured": "real_networks",
    "Mixed": "mixed",
    "names": "zoo",
    "plot": "chart",
    "profile": "profiling",
    "swap": "swapping",
}

_method, _methods = lazy_family(f"{__name__}.methods", str(Path(__file__).parent / "methods"))


def __getattr__(name: str) -> Any:
    return getattr(import_module(f".{_NAMES[name]}", __name__), name) if name in _NAMES else _method(name)


def __dir__() -> list[str]:
    return sorted([*_NAMES, *_methods()])
