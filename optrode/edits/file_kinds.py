"""How adapter and policy edits are described in a file, and built from a description."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from torch import Tensor

from .adapter import FORMS, AdapterEdit, Delta
from .base import SiteEditBase
from .checked import hashed_provenance, number, own_tensors, recipe_hash, text
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
