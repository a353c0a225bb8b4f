"""How adapter and policy edits, and conditions, are described in a file, and built from a description."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from torch import Tensor

from ..errors import NotSupported
from ..positions import Positions
from .adapter import FORMS, AdapterEdit, Delta
from .base import SiteEditBase
from .checked import hashed_provenance, number, own_tensors, recipe_hash, text
from .conditions import MEASURES, AllOf, AnyOf, Condition, Conditions
from .policy import SAVEABLE_POLICIES, Backtrack

_DELTA = {"module", "form", "scale", "tensors"}
_SETTINGS = ("bias", "threshold", "tokens", "tries")


def describe_adapter(edit: AdapterEdit, name: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The node of an adapter edit; its tensors are put among `tensors`."""
    described = []
    for place, delta in enumerate(edit.deltas):
        own = f"{name}.{place}"
        for field_name, tensor in delta.tensors().items():
            tensors[f"{own}.{field_name}"] = tensor.detach().cpu().contiguous().clone()
        described.append({"module": delta.module, "form": delta.form, "scale": delta.scale, "tensors": own})
    recipe = edit.provenance.recipe
    return {
        "node": "adapter",
        "deltas": described,
        "provenance": asdict(edit.provenance),
        "recipe_hash": recipe_hash(recipe) if recipe else None,
    }


def describe_backtrack(
    edit: Backtrack, name: str, tensors: dict[str, Tensor], steering: dict[str, Any] | None
) -> dict[str, Any]:
    """The node of a policy; `steering` is that of its own edit."""
    tensors[f"{name}.weight"] = edit.weight.detach().cpu().contiguous().clone()
    recipe = edit.provenance.recipe
    return {
        "node": "policy",
        "policy": edit.name,
        "site": edit.site,
        "tensors": name,
        "settings": {setting: getattr(edit, setting) for setting in _SETTINGS},
        "edit": steering,
        "provenance": asdict(edit.provenance),
        "recipe_hash": recipe_hash(recipe) if recipe else None,
    }


def build_backtrack(node: dict[str, Any], tensors: dict[str, Tensor], steering: SiteEditBase | None) -> Backtrack:
    """The policy that a node describes, with its own edit."""
    settings = node["settings"]
    if settings.keys() ^ set(_SETTINGS) or not all(type(settings[name]) is int for name in ("tokens", "tries")):
        raise ValueError("the settings of a policy")
    return SAVEABLE_POLICIES[node["policy"]](
        site=text(node["site"]),
        **own_tensors(node, tensors),
        bias=number(settings["bias"]),
        threshold=number(settings["threshold"]),
        tokens=settings["tokens"],
        tries=settings["tries"],
        edit=steering,
        provenance=hashed_provenance(node),
    )


def _build_delta(node: dict[str, Any], tensors: dict[str, Tensor]) -> Delta:
    if node.keys() ^ _DELTA:
        raise ValueError("entries of a change of weights that are unknown or missing")
    return FORMS[node["form"]](text(node["module"]), **own_tensors(node, tensors), scale=number(node["scale"]))


def build_adapter(node: dict[str, Any], tensors: dict[str, Tensor]) -> AdapterEdit:
    """The adapter edit that a node describes."""
    return AdapterEdit(tuple(_build_delta(delta, tensors) for delta in node["deltas"]), hashed_provenance(node))


# Conditions -----------------------------------------------------------------------------------------------------------

_CONDITION = {"node", "site", "measure", "tensors", "threshold", "fires", "positions"}


def describe_condition(one: Conditions, name: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The node of a condition; its tensors are put among `tensors`."""
    if isinstance(one, AllOf | AnyOf):
        parts = [describe_condition(part, f"{name}.{number}", tensors) for number, part in enumerate(one.parts)]
        return {"node": "all" if isinstance(one, AllOf) else "any", "parts": parts}
    if not isinstance(one, Condition) or one.measure.name not in MEASURES:
        raise NotSupported(f"a condition of kind '{type(one).__name__}' cannot be saved")
    for field_name, tensor in one.measure.tensors().items():
        tensors[f"{name}.{field_name}"] = tensor.detach().cpu().contiguous().clone()
    return {
        "node": "condition",
        "site": one.site,
        "measure": one.measure.name,
        "tensors": name,
        "threshold": one.threshold,
        "fires": one.fires,
        "positions": one.positions.text,
    }


def build_condition(node: dict[str, Any], tensors: dict[str, Tensor]) -> Conditions:
    """The condition that a node describes."""
    if node["node"] in ("all", "any"):
        if node.keys() ^ {"node", "parts"} or not node["parts"]:
            raise ValueError("entries of a condition that are unknown or missing")
        parts = tuple(build_condition(part, tensors) for part in node["parts"])
        return AllOf(parts) if node["node"] == "all" else AnyOf(parts)
    if node["node"] != "condition" or node.keys() ^ _CONDITION:
        raise ValueError("entries of a condition that are unknown or missing")
    measure = MEASURES[node["measure"]](**own_tensors(node, tensors))
    return Condition(
        text(node["site"]), measure, number(node["threshold"]), text(node["fires"]), Positions(text(node["positions"]))
    )
