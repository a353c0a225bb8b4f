"""The `.edit` file: one safetensors file whose metadata says everything that its tensors need to be used rightly.

Metadata `optrode` is JSON: format and library version, kind, the tree of operations with sites, positions, strength
and unit, and the provenance (fingerprint of the model, recipe with its hash, site equations, stream norms, start-token
policy). Loading reads JSON and tensors; no code is run, and anything unknown is refused.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import BadFile, BadInput, MissingFile, NotSupported, OptrodeError
from ..home import written_whole
from ..positions import Positions
from ..version import __version__
from .base import UNITS, Chain, Edit, Provenance, SiteEdit, SiteEditBase, Sum
from .operators import SAVEABLE, refuse_unsaveable
from .prefix import PrefixEdit

FORMAT = "optrode.edit/1"


def save(edit: Edit, path: str | Path) -> Path:
    """Write an edit; the file is whole or absent.

    Raises `NotSupported` for edits that hold code, `BadInput` when the path is a folder.
    """
    from safetensors.torch import save_file

    path = Path(path)
    if path.is_dir():
        raise BadInput(f"'{path}' is a folder: name a file in it, such as {path.name}/my.edit")
    tensors: dict[str, Tensor] = {}
    described = {"format": FORMAT, "version": __version__, "kind": edit.kind, "edit": _describe(edit, "edit", tensors)}
    # A file without any tensor is not a valid safetensors file for every reader.
    tensors = tensors or {"empty": torch.zeros(1)}
    with written_whole(path) as aside:
        save_file(tensors, aside, metadata={"optrode": _text_of(described)})
    return path


def load_edit(path: str | Path) -> Edit:
    """Read an edit that `Edit.save` wrote.

    Raises `MissingFile`, and `BadFile` when the file is damaged, foreign or of a later format. Whether it fits a model
    is decided when it is used: same weights, same architecture (a warning), another model (`WrongModel`).
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFile(f"there is no edit file '{path}': make one with edit.save or optrode fit")
    described, tensors = _read(path)
    if described.get("format") != FORMAT:
        raise BadFile(
            f"'{path.name}' has format {described.get('format')!r}, this version reads {FORMAT}: update optrode"
        )
    try:
        return _build(described["edit"], tensors)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, OptrodeError) as problem:
        raise BadFile(f"'{path.name}' is damaged: {type(problem).__name__} at {_line(problem)}") from problem


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("optrode")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, ValueError) as problem:
        raise BadFile(f"'{path.name}' is no safetensors file or is damaged: {_line(problem)}") from problem
    if text is None:
        raise BadFile(f"'{path.name}' is a safetensors file but no edit: it has no optrode metadata")
    try:
        described = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise BadFile(f"'{path.name}' is damaged: its metadata is no JSON") from problem
    if not isinstance(described, dict):
        raise BadFile(f"'{path.name}' is damaged: its metadata is no object")
    return described, tensors


def recipe_hash(recipe: dict[str, Any]) -> str:
    """Hash of a recipe as a file holds it, independent of the order of its entries."""
    return hashlib.sha256(_text_of(recipe).encode()).hexdigest()[:16]


def _text_of(value: dict[str, Any]) -> str:
    """JSON with sorted keys; sorted once all keys are texts, as they are when the file is read again."""
    return json.dumps(json.loads(json.dumps(value, default=str)), sort_keys=True)


# Description: one function per kind of node, and its inverse --------------------------------------------------------


def _describe(edit: Edit, name: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    if isinstance(edit, SiteEdit):
        return _describe_leaf(edit, name, tensors)
    if isinstance(edit, Sum | Chain):
        node = {
            "node": "sum" if isinstance(edit, Sum) else "chain",
            "parts": [_describe(part, f"{name}.{number}", tensors) for number, part in enumerate(edit.parts)],
        }
        return node | ({"strength": edit.strength} if isinstance(edit, Chain) else {})
    if isinstance(edit, PrefixEdit):
        turns = [list(turn) for turn in edit.turns]
        return {"node": "prefix", "system": edit.system, "turns": turns, "provenance": asdict(edit.provenance)}
    raise NotSupported(f"an edit of kind '{edit.kind or type(edit).__name__}' cannot be saved")


def _describe_leaf(edit: SiteEdit, name: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    refuse_unsaveable(edit.operator)
    for field_name, tensor in edit.operator.tensors().items():
        tensors[f"{name}.{field_name}"] = tensor.detach().cpu().contiguous().clone()
    recipe = edit.provenance.recipe
    described = {
        "node": "site",
        "site": edit.site,
        "operator": edit.operator.name,
        "tensors": name,
        "settings": edit.operator.settings(),
        "positions": edit.positions.text,
        "strength": edit.strength,
        "unit": edit.unit,
        "features": edit.features,
        "heads": edit.heads,
        "provenance": asdict(edit.provenance),
        "recipe_hash": recipe_hash(recipe) if recipe else None,
    }
    narrow = {"keys": edit.keys.text if edit.keys is not None else None, "experts": edit.experts}
    return described | {key: value for key, value in narrow.items() if value is not None}


# What a description says, no more and no less: an entry that is not understood may change what the edit does.
_ENTRIES = {
    "site": {
        "node", "site", "operator", "tensors", "settings", "positions", "strength", "unit", "features", "heads",
        "provenance", "recipe_hash",
    },
    "sum": {"node", "parts"},
    "chain": {"node", "parts", "strength"},
    "prefix": {"node", "system", "turns", "provenance"},
}  # fmt: skip


def _build(node: dict[str, Any], tensors: dict[str, Tensor]) -> Edit:
    kind = node["node"]
    optional = {"keys", "experts"} if kind == "site" else set()
    if (node.keys() - optional) ^ _ENTRIES.get(kind, {"node"}):
        raise ValueError(f"entries of {kind!r} that are unknown or missing")
    if kind == "site":
        return _build_leaf(node, tensors)
    if kind in ("sum", "chain"):
        parts = tuple(_site_part(_build(part, tensors)) for part in node["parts"])
        return Sum(parts) if kind == "sum" else Chain(parts, _number(node["strength"]))
    if kind == "prefix":
        turns = tuple((_text(role), _text(content)) for role, content in node["turns"])
        return PrefixEdit(_text(node["system"]), turns, _provenance(node["provenance"]))
    raise ValueError(f"unknown node {kind!r}")


def _site_part(edit: Edit) -> SiteEditBase:
    if not isinstance(edit, SiteEditBase):
        raise TypeError("a part that is no site edit")
    return edit


def _build_leaf(node: dict[str, Any], tensors: dict[str, Tensor]) -> SiteEdit:
    operator = SAVEABLE[node["operator"]]
    prefix = f"{node['tensors']}."
    own = {key.removeprefix(prefix): value for key, value in tensors.items() if _is_own(key, prefix)}
    provenance = _provenance(node["provenance"])
    if node["recipe_hash"] != (recipe_hash(provenance.recipe) if provenance.recipe else None):
        raise ValueError("the recipe, which does not match its hash")
    return SiteEdit(
        site=_text(node["site"]),
        operator=operator(**own, **{key: _number(value) for key, value in node["settings"].items()}),
        positions=Positions(_text(node["positions"])),
        strength=_number(node["strength"]),
        features=_integers(node["features"]),
        heads=_integers(node["heads"]),
        keys=Positions(_text(node["keys"])) if "keys" in node else None,
        experts=_integers(node.get("experts")),
        unit=_unit(node["unit"]),
        provenance=provenance,
    )


def _provenance(node: dict[str, Any]) -> Provenance:
    found = Provenance(**node)
    tables = (found.fingerprint, found.recipe, found.equations, found.stream_norm)
    if not all(isinstance(table, dict) for table in tables):
        raise TypeError("the provenance, whose entries are no tables")
    _text(found.start_token)
    return found


def _is_own(key: str, prefix: str) -> bool:
    return key.startswith(prefix) and "." not in key.removeprefix(prefix)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"{value!r}, which is no number")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r}, which is no text")
    return value


def _unit(value: Any) -> str:
    if value not in UNITS:
        raise ValueError(f"the unit {value!r}")
    return value


def _integers(value: Any) -> tuple[int, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(type(item) is int for item in value):
        raise TypeError(f"{value!r}, which are no whole numbers")
    return tuple(value)


def _line(problem: BaseException) -> str:
    return (str(problem).splitlines() or [type(problem).__name__])[0]
