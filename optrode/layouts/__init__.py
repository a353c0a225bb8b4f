"""Where each site lives in each architecture: one data file per layout, found by scanning this folder.

To add one: write `layouts/<name>.py` with a module-level `LAYOUT` and a mirrored test that proves its equations on a
tiny randomly initialised model. There is no list to edit.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import Any

from .base import Equation, Layout, Port

__all__ = ["Equation", "Layout", "Port", "all_layouts", "find"]


@cache
def all_layouts() -> tuple[Layout, ...]:
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "base")
    return tuple(importlib.import_module(f"{__name__}.{name}").LAYOUT for name in names)


def find(module: Any) -> Layout | None:
    """The layout of a network, by the model type of its config or by its class name; None if there is none.

    Where a config chooses between kinds of blocks, the layout's variant for that choice; one class may be several kinds
    of network, which the `when` of their layouts tell apart.
    """
    config = getattr(module, "config", None)
    model_type = getattr(config, "model_type", None)
    for layout in all_layouts():
        if model_type in layout.model_types or type(module).__name__ in layout.module_classes:
            suited = layout.suited(config)
            if suited is not None:
                return suited
    return None
