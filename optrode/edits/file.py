"""The `.edit` file: one safetensors file whose metadata says everything that its tensors need to be used rightly.

Metadata `optrode` is JSON: format and library version, kind, the tree of operations with sites, positions, strength
and unit, and the provenance (fingerprint of the model, recipe with its hash, site equations, stream norms, start-token
policy). Loading reads JSON and tensors; no code is run, and anything unknown is refused.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import BadFile, BadInput, MissingFile, NotSupported, OptrodeError
from ..home import written_whole
from ..messages import one_line, shown
from ..positions import Positions
from ..version import __version__
from .adapter import AdapterEdit
from .base import Chain, Edit, SiteEdit, SiteEditBase, Sum
from .checked import hashed_provenance, integers, number, own_tensors, provenance, recipe_hash, text, text_of, unit
from .conditional import ConditionalEdit, when
from .file_kinds import (
    build_adapter,
    build_backtrack,
    build_condition,
    describe_adapter,
    describe_backtrack,
    describe_condition,
)
from .operators import SAVEABLE, refuse_unsaveable
from .part import PartEdit
from .part_files import build_part, describe_part
from .policy import Backtrack
from .prefix import PrefixEdit
from .rows import RowsEdit, by_row
from .together import Together, together

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
        save_file(tensors, aside, metadata={"optrode": text_of(described)})
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
            f"'{path.name}' has format {shown(described.get('format'))}, this version reads {FORMAT}: update optrode"
        )
    try:
        return _build(described["edit"], tensors)
    except (LookupError, ArithmeticError, TypeError, ValueError, AttributeError, RuntimeError, OptrodeError) as problem:
        raise BadFile(f"'{path.name}' is damaged: {type(problem).__name__} at {one_line(problem)}") from problem


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("optrode")
            # A copy, since the file's own places in memory are not aligned, and products there round otherwise.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, ValueError) as problem:
        raise BadFile(f"'{path.name}' is no safetensors file or is damaged: {one_line(problem)}") from problem
    if text is None:
        raise BadFile(f"'{path.name}' is a safetensors file but no edit: it has no optrode metadata")
    try:
        described = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise BadFile(f"'{path.name}' is damaged: its metadata is no JSON") from problem
    if not isinstance(described, dict):
        raise BadFile(f"'{path.name}' is damaged: its metadata is no object")
    return described, tensors


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
    if isinstance(edit, RowsEdit):
        parts = {row: _describe(part, f"{name}.{row}", tensors) for row, part in edit.parts()}
        return {"node": "rows", "rows": [parts.get(row) for row in range(len(edit.rows))]}
    if isinstance(edit, ConditionalEdit):
        condition = describe_condition(edit.condition, f"{name}.condition", tensors)
        return {"node": "when", "condition": condition, "edit": _describe(edit.edit, f"{name}.edit", tensors)}
    if isinstance(edit, PrefixEdit):
        turns = [list(turn) for turn in edit.turns]
        return {"node": "prefix", "system": edit.system, "turns": turns, "provenance": asdict(edit.provenance)}
    if isinstance(edit, AdapterEdit):
        return describe_adapter(edit, name, tensors)
    if isinstance(edit, PartEdit):
        return describe_part(edit, name, tensors)
    if isinstance(edit, Together):
        return {
            "node": "together",
            "edits": [_describe(one, f"{name}.{number}", tensors) for number, one in enumerate(edit.edits)],
        }
    if isinstance(edit, Backtrack):
        steering = None if edit.edit is None else _describe(edit.edit, f"{name}.edit", tensors)
        return describe_backtrack(edit, name, tensors, steering)
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
    "rows": {"node", "rows"},
    "when": {"node", "condition", "edit"},
    "prefix": {"node", "system", "turns", "provenance"},
    "adapter": {"node", "deltas", "provenance", "recipe_hash"},
    "part": {"node", "parts", "strength", "provenance", "recipe_hash"},
    "together": {"node", "edits"},
    "policy": {"node", "policy", "site", "tensors", "settings", "edit", "provenance", "recipe_hash"},
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
        if not parts:
            raise ValueError(f"a {kind} of nothing")
        return Sum(parts) if kind == "sum" else Chain(parts, number(node["strength"]))
    if kind == "rows":
        return by_row([None if part is None else _site_part(_build(part, tensors)) for part in node["rows"]])
    if kind == "when":
        return when(build_condition(node["condition"], tensors), _site_part(_build(node["edit"], tensors)))
    if kind == "prefix":
        turns = tuple((text(role), text(content)) for role, content in node["turns"])
        return PrefixEdit(text(node["system"]), turns, provenance(node["provenance"]))
    if kind == "adapter":
        return build_adapter(node, tensors)
    if kind == "part":
        return build_part(node, tensors)
    if kind == "together":
        return together(*(_build(one, tensors) for one in node["edits"]))
    if kind == "policy":
        steering = node["edit"]
        inner = None if steering is None else _site_part(_build(steering, tensors))
        return build_backtrack(node, tensors, inner)
    raise ValueError(f"unknown node {kind!r}")


def _site_part(edit: Edit) -> SiteEditBase:
    if not isinstance(edit, SiteEditBase):
        raise TypeError("a part that is no site edit")
    return edit


def _build_leaf(node: dict[str, Any], tensors: dict[str, Tensor]) -> SiteEdit:
    operator = SAVEABLE[node["operator"]]
    return SiteEdit(
        site=text(node["site"]),
        operator=operator(
            **own_tensors(node, tensors), **{key: number(value) for key, value in node["settings"].items()}
        ),
        positions=Positions(text(node["positions"])),
        strength=number(node["strength"]),
        features=integers(node["features"]),
        heads=integers(node["heads"]),
        keys=Positions(text(node["keys"])) if "keys" in node else None,
        experts=integers(node.get("experts")),
        unit=unit(node["unit"]),
        provenance=hashed_provenance(node),
    )
