"""Functions with their parameters as plain values and tensors, and back: what `.edit` files hold of swaps.

A function of the list is known by its name, and its formula must still be the same; one of your own is its formula,
which is parsed and never run as Python. Numbers come from the file's own tensors, so that no size that a file states
makes memory be taken.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ..edits.checked import number, own_tensors, text
from ..errors import NotFinite, NotSupported
from .built.registry import BuiltFunction
from .mixed import Mixed
from .module import Activation
from .of_formula import FormulaFunction, from_formula
from .protocol import Function
from .zoo import get

OWN = "own"
_FUNCTION = {"function", "per", "axis", "sizes", "seed", "trained", "tensors"}
_MIXED = {"width", "axis", "parts"}


# To plain values -----------------------------------------------------------------------------------------------------


def describe(module: nn.Module, name: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """A module with functions in plain values; its numbers are put among `tensors`, under `name`.

    Raises `NotSupported` for one that no name and no formula tells.
    """
    if type(module) is Mixed:
        parts = [describe(part, f"{name}.{place}", tensors) for place, part in enumerate(module.functions)]
        for place, neurons in enumerate(module.neurons()):
            tensors[f"{name}.{place}.neurons"] = neurons.detach().cpu().clone()
        return {"width": module.width, "axis": module.axis, "parts": parts}
    if type(module) is not Activation:
        raise NotSupported(f"a {type(module).__name__} cannot be saved: a file holds no code")
    for key, value in module.state_dict().items():
        tensors[f"{name}.{key}"] = value.detach().cpu().contiguous().clone()
    return {
        "function": _function(module.function),
        "per": module.per,
        "axis": module.axis,
        "sizes": list(module.sizes) if module.sizes else None,
        "seed": module.seed,
        "trained": [key for key, _ in module.named_parameters()],
        "tensors": name,
    }


def _function(function: Function) -> dict[str, Any]:
    if isinstance(function, FormulaFunction) and function.row.kind == OWN:
        return _own(function)
    known = get(function.name)
    if known is function:
        return {"name": function.name, "formula": function.formula}
    if isinstance(function, BuiltFunction) and isinstance(known, BuiltFunction) and isinstance(function.base, Function):
        return {"name": function.name, "formula": function.formula, "base": _function(function.base)}
    raise NotSupported(f"this {function.name} is not that of the list, and a file holds no code: give it as a formula")


def _own(function: FormulaFunction) -> dict[str, Any]:
    if function.draw is not None or function.stable is not None:
        raise NotSupported(f"{function.name} is more than its formula, and a file holds no code: use from_formula")
    defaults = {key: one.default for key, one in function.defaults.items()}
    for key, value in defaults.items():
        if not math.isfinite(value):
            raise NotFinite(f"the default of '{key}' of {function.name} is {value}, which no file can hold")
    return {
        "own": function.formula, "name": function.name, "parameters": defaults, "derivative": function.surrogate,
    }  # fmt: skip


# And back ------------------------------------------------------------------------------------------------------------


def build(kind: str, node: dict[str, Any], tensors: dict[str, Tensor]) -> nn.Module:
    """The module that plain values describe. Raises `ValueError`, `TypeError` or an error of optrode."""
    if kind == "mixed":
        if node.keys() ^ _MIXED:
            raise ValueError("entries of mixed functions that are unknown or missing")
        parts = [_activation(part, tensors, {"neurons"}) for part in node["parts"]]
        neurons = [_neurons(own_tensors(part, tensors)["neurons"]) for part in node["parts"]]
        return Mixed(list(zip(parts, neurons, strict=True)), _whole(node["width"]), axis=_axis(node["axis"]))
    return _activation(node, tensors, set())


def _activation(node: dict[str, Any], tensors: dict[str, Tensor], besides: set[str]) -> Activation:
    if node.keys() ^ _FUNCTION:
        raise ValueError("entries of a function that are unknown or missing")
    function = _built(node["function"])
    sizes = None if node["sizes"] is None else tuple(_whole(size) for size in node["sizes"])
    if sizes is not None and (not sizes or min(sizes) < 1):
        raise ValueError("the sizes of a function")
    # On no device: shapes without memory, whatever sizes the file states.
    with torch.device("meta"):
        made = Activation(function, sizes, per=text(node["per"]), axis=_axis(node["axis"]), seed=_whole(node["seed"]))
    own = {key: value for key, value in own_tensors(node, tensors).items() if key not in besides}
    wanted = made.state_dict()
    trained = {text(key) for key in node["trained"]}
    if own.keys() ^ wanted.keys() or not trained <= {key for key in own if not key.startswith("running_")}:
        raise ValueError(f"the parameters of {function.name}, which are others")
    for key, value in own.items():
        if value.shape != wanted[key].shape or not value.is_floating_point():
            raise ValueError(f"the parameter {key!r} of {function.name}, which is no {list(wanted[key].shape)}")
        made.put(key, value, trained=key in trained)
    return made


def _built(node: dict[str, Any]) -> Function:
    if "own" in node:
        if node.keys() ^ {"own", "name", "parameters", "derivative"}:
            raise ValueError("entries of a formula that are unknown or missing")
        derivative = None if node["derivative"] is None else text(node["derivative"])
        parameters = {key: number(value) for key, value in node["parameters"].items()}
        made = from_formula(text(node["own"]), parameters=parameters, name=text(node["name"]), derivative=derivative)
        # Compiled here, so that a formula which cannot be is refused with the file.
        made.operation.by(0)
        return made
    if (node.keys() - {"base"}) ^ {"name", "formula"}:
        raise ValueError("entries of a function that are unknown or missing")
    found = get(text(node["name"]))
    if found.name != node["name"] or found.formula != node["formula"]:
        raise ValueError(f"the function {found.name}, whose formula here is {found.formula}")
    if "base" not in node:
        return found
    if not isinstance(found, BuiltFunction) or found.base is None or "base" in node["base"]:
        raise ValueError(f"the function {found.name}, which has no such free function")
    return found.of(_built(node["base"]))


def _neurons(value: Tensor) -> Tensor:
    if value.dtype != torch.int64 or value.dim() != 1:
        raise TypeError("the neurons of a function, which are no list of whole numbers")
    return value


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise TypeError("a size or seed, which is no whole number")
    return value


def _axis(value: Any) -> int:
    if type(value) is not int or not -8 <= value < 8:
        raise TypeError("an axis, which is no small whole number")
    return value
