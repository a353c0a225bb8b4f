"""Finding methods without a list to edit: a family's methods are the classes with an `id` in the files of its folder.

Files are parsed, not imported, so that listing a family costs milliseconds and no heavy library; a class is imported
when its name is first used.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import UnknownName, did_you_mean


@dataclass(frozen=True)
class Found:
    """One method: its catalogue id, title, class name, and the module that holds it."""

    id: str
    title: str
    name: str
    module: str


@cache
def methods_of(package: str, folder: str) -> dict[str, Found]:
    """Class name -> method, for every class with a non-empty `id` in the folder's files."""
    found: dict[str, Found] = {}
    for path in sorted(Path(folder).glob("*.py")):
        if path.stem.startswith("_") or path.stem == "protocol":
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                texts = _class_texts(node)
                if texts.get("id"):
                    found[node.name] = Found(
                        texts["id"], texts.get("title", node.name), node.name, f"{package}.{path.stem}"
                    )
    return found


def _class_texts(node: ast.ClassDef) -> dict[str, str]:
    """Class attributes that are set to a plain text, annotated or not."""
    texts = {}
    for item in node.body:
        target = (
            item.target
            if isinstance(item, ast.AnnAssign)
            else item.targets[0]
            if isinstance(item, ast.Assign)
            else None
        )
        value = getattr(item, "value", None)
        if isinstance(target, ast.Name) and isinstance(value, ast.Constant) and isinstance(value.value, str):
            texts[target.id] = value.value
    return texts


def lazy_family(package: str, folder: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` for a family's `__init__`: its methods by class name, imported when used."""

    def get(name: str) -> Any:
        found = methods_of(package, folder).get(name)
        if found is None:
            raise AttributeError(f"{package} has no method '{name}': {did_you_mean(name, methods_of(package, folder))}")
        return getattr(importlib.import_module(found.module), name)

    return get, lambda: sorted(methods_of(package, folder))


def find_method(package: str, name: str) -> Any:
    """A method's class by its id or class name. Raises `UnknownName` with the nearest ids."""
    folder = str(Path(importlib.import_module(package).__file__ or "").parent)
    methods = methods_of(package, folder)
    for found in methods.values():
        if name in (found.id, found.name):
            return getattr(importlib.import_module(found.module), found.name)
    raise UnknownName(f"there is no method '{name}': {did_you_mean(name, [found.id for found in methods.values()])}")
