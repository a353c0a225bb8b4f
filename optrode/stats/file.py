"""Statistics on disk: one safetensors file with JSON beside the tensors; loading runs no code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import BadFile, MissingFile


def read_file(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The description and the tensors of a file. Raises `MissingFile` and `BadFile`."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise MissingFile(f"there is no file '{path}': save statistics first")
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("optrode")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        described = json.loads(text) if text else None
    except (SafetensorError, OSError, ValueError, RecursionError) as problem:
        raise BadFile(f"'{path.name}' is no file of statistics or is damaged") from problem
    if not isinstance(described, dict):
        raise BadFile(f"'{path.name}' is a safetensors file but holds no statistics: it has no optrode metadata")
    return described, tensors
