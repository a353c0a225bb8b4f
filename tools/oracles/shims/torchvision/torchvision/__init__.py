"""Stands in for torchvision where a package imports names that it does not use: every name is an empty class.

The real one cannot be had without CUDA beside this torch. Whatever is called here fails, so that no number can come
from a stand-in.
"""

from __future__ import annotations

import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class _Names(type):
    """Names inside names are empty classes too, such as the entries of an enumeration."""

    def __getattr__(cls, name: str) -> type:
        return _name(name)


class _Absent(metaclass=_Names):
    def __init__(self, *arguments: Any, **options: Any):
        raise NotImplementedError(f"{type(self).__name__} of torchvision is only a name here")


def _name(name: str) -> type:
    if name.startswith("__"):
        raise AttributeError(name)
    return _Names(name, (_Absent,), {})


class _Modules(MetaPathFinder, Loader):
    """Gives an empty module for every module of torchvision that is imported."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(fullname, self, is_package=True) if fullname.startswith("torchvision.") else None

    def exec_module(self, module: ModuleType) -> None:
        module.__getattr__ = _name  # type: ignore[method-assign]


__getattr__ = _name
sys.meta_path.append(_Modules())
