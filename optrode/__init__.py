"""optrode: read, score, edit and compare the activations of neural networks.

Six nouns: `Model`, `Site`, `Activations`, `Edit`, `Score`, `Map`. Importing this package loads none of the heavy
libraries; they come with the first name that needs them.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from . import data, dictionaries, edits, functions, guard, lm_eval, massive, metrics, retrieval, steering
    from .activations import Activations
    from .catalogue import systems
    from .compare import compare
    from .edits.base import Edit
    from .edits.file import load_edit
    from .engine.editing.active import active
    from .engine.sweep import plan_sweep, sweep
    from .function_comparison import compare_functions
    from .maps import Map
    from .model import Model, load, plan, read, sites
    from .positions import Positions
    from .scores import Score
    from .stats.over import stats
    from .stats.statistics import Statistics
    from .store import Store, open
    from .store.harvest import harvest
    from .store.plan import plan_harvest

# Public name -> where it lives. Families and `data`, `edits` are modules; the rest are attributes of one.
_MODULES = (
    "data", "dictionaries", "edits", "functions", "guard", "lm_eval", "massive", "metrics", "retrieval", "steering",
)  # fmt: skip
_NAMES = {
    "Activations": "activations",
    "Edit": "edits.base",
    "Map": "maps",
    "Model": "model",
    "Positions": "positions",
    "Score": "scores",
    "Statistics": "stats.statistics",
    "Store": "store",
    "active": "engine.editing.active",
    "compare": "compare",
    "compare_functions": "function_comparison",
    "harvest": "store",
    "load": "model",
    "load_edit": "edits.file",
    "open": "store",
    "plan": "model",
    "plan_harvest": "store",
    "plan_sweep": "engine.sweep",
    "read": "model",
    "sites": "model",
    "stats": "stats.over",
    "sweep": "engine.sweep",
    "systems": "catalogue",
}

__all__ = [
    "Activations", "Edit", "Map", "Model", "Positions", "Score", "Statistics", "Store", "__version__", "active",
    "compare", "compare_functions", "data", "dictionaries", "edits", "functions", "guard", "harvest", "lm_eval", "load",
    "load_edit", "massive", "metrics", "open", "plan", "plan_harvest", "plan_sweep", "read", "retrieval", "sites",
    "stats", "steering", "sweep", "systems",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(f".{_NAMES[name]}", __name__), name)
    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module 'optrode' has no attribute '{name}'")


class _Package(types.ModuleType):
    """Keeps `optrode.sites` and `optrode.compare` functions: importing a submodule would put it under their names."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _NAMES and isinstance(value, types.ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __dir__() -> list[str]:
    return sorted(__all__)
