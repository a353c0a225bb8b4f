"""How part edits are described in a file, and built from a description.

What stands in for a module is a module, which is code, so a file says by name which of the known kinds it is and holds
its numbers. Those kinds belong to families above; `MAKERS` lists their modules, and nothing else is ever imported.
"""

from __future__ import annotations

from dataclasses import asdict
from importlib import import_module
from typing import Any

from torch import Tensor, nn

from ..errors import NotSupported
from .checked import hashed_provenance, number, recipe_hash, text
from .part import PartEdit

# Kind of module, as its class says it in `saved_as` -> the module that describes and builds it.
MAKERS = {"function": "optrode.functions.saved", "mixed": "optrode.functions.saved"}
_PART = {"module", "made"}


def describe_part(edit: PartEdit, name: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The node of a part edit; the numbers of its modules are put among `tensors`."""
    parts = [
        {"module": path, "made": describe_module(module, path, f"{name}.{place}", tensors)}
        for place, (path, module) in enumerate(edit.parts)
    ]
    recipe = edit.provenance.recipe
    return {
        "node": "part",
        "parts": parts,
        "strength": edit.strength,
        "provenance": asdict(edit.provenance),
        "recipe_hash": recipe_hash(recipe) if recipe else None,
    }


def describe_module(module: nn.Module, path: str, name: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """What a module is, in plain values. Raises `NotSupported` for one of no known kind."""
    kind = getattr(module, "saved_as", "")
    if kind not in MAKERS:
        raise NotSupported(
            f"what stands in for {path} is a {type(module).__name__}, and a file holds no code: name a function of the "
            "zoo, or make one with op.functions.from_formula"
        )
    return {"kind": kind, **import_module(MAKERS[kind]).describe(module, name, tensors)}


def build_part(node: dict[str, Any], tensors: dict[str, Tensor]) -> PartEdit:
    """The part edit that a node describes."""
    parts = []
    for part in node["parts"]:
        if part.keys() ^ _PART:
            raise ValueError("entries of a part that are unknown or missing")
        parts.append((text(part["module"]), build_module(part["made"], tensors)))
    return PartEdit(tuple(parts), number(node["strength"]), hashed_provenance(node))


def build_module(made: dict[str, Any], tensors: dict[str, Tensor]) -> nn.Module:
    """The module that plain values describe, in evaluation mode."""
    kind = text(made["kind"])
    if kind not in MAKERS:
        raise ValueError(f"unknown kind of module {kind!r}")
    rest = {key: value for key, value in made.items() if key != "kind"}
    module = import_module(MAKERS[kind]).build(kind, rest, tensors)
    assert isinstance(module, nn.Module)
    return module.eval()
