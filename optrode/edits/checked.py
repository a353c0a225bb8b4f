"""What is read from a file is checked here: a value of another kind than it should be is an error, never a guess."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

from torch import Tensor

from ..messages import shown
from .base import UNITS, Provenance


def recipe_hash(recipe: dict[str, Any]) -> str:
    """Hash of a recipe as a file holds it, independent of the order of its entries."""
    return hashlib.sha256(text_of(recipe).encode()).hexdigest()[:16]


def text_of(value: dict[str, Any]) -> str:
    """JSON with sorted keys; sorted once all keys are texts, as they are when the file is read again."""
    return json.dumps(json.loads(json.dumps(value, default=str)), sort_keys=True)


def own_tensors(node: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The tensors of one node, by field name."""
    prefix = f"{node['tensors']}."
    return {key.removeprefix(prefix): value for key, value in tensors.items() if _is_own(key, prefix)}


def hashed_provenance(node: dict[str, Any]) -> Provenance:
    """The provenance of a node, whose recipe must be the one that was hashed."""
    found = provenance(node["provenance"])
    if node["recipe_hash"] != (recipe_hash(found.recipe) if found.recipe else None):
        raise ValueError("the recipe, which does not match its hash")
    return found


def provenance(node: dict[str, Any]) -> Provenance:
    """Where an edit comes from, as a file says it."""
    found = Provenance(**node)
    tables = (found.fingerprint, found.recipe, found.equations, found.stream_norm)
    if not all(isinstance(table, dict) for table in tables):
        raise TypeError("the provenance, whose entries are no tables")
    for said in (found.start_token, *found.fingerprint.values(), *found.equations.values()):
        text(said)
    for norm in found.stream_norm.values():
        number(norm)
    return found


def _is_own(key: str, prefix: str) -> bool:
    return key.startswith(prefix) and "." not in key.removeprefix(prefix)


def number(value: Any) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"{shown(value)}, which is no number")
    return value


def text(value: Any) -> str:
    """A text."""
    if not isinstance(value, str):
        raise TypeError(f"{shown(value)}, which is no text")
    return value


def unit(value: Any) -> str:
    """One of the units of strength."""
    if value not in UNITS:
        raise ValueError(f"the unit {shown(value)}")
    return value


def integers(value: Any) -> tuple[int, ...] | None:
    """A list of whole numbers, or None."""
    if value is None:
        return None
    if not isinstance(value, list) or not all(type(item) is int for item in value):
        raise TypeError(f"{shown(value)}, which are no whole numbers")
    return tuple(value)
