"""Statistics on disk: one safetensors file with JSON beside the tensors and a checksum; loading runs no code."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import BadFile, MissingFile

_CHECKSUM = "crc32"


def write_file(path: str | Path, described: dict[str, Any], tensors: dict[str, Tensor]) -> Path:
    """Write a description and tensors; the file is whole or absent."""
    from safetensors.torch import save_file

    from ..home import written_whole

    path = Path(path)
    kept = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
    # As it will be read again: JSON knows fewer kinds of values than Python.
    plain = json.loads(json.dumps(described))
    text = json.dumps({**plain, _CHECKSUM: _checksum(plain, kept)})
    with written_whole(path) as aside:
        save_file(kept, aside, metadata={"optrode": text})
    return path


def read_file(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The description and the tensors of a file. Raises `MissingFile` and `BadFile`; a changed byte is noticed."""
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
    if described.pop(_CHECKSUM, -1) != _known_checksum(described, tensors):
        raise BadFile(f"'{path.name}' is no file of statistics or is damaged: its checksum is another")
    return described, tensors


def _known_checksum(described: dict[str, Any], tensors: dict[str, Tensor]) -> int | None:
    """The checksum, or None for tensors of a kind that statistics never have (numpy knows no bfloat16, for one)."""
    try:
        return _checksum(described, tensors)
    except (TypeError, ValueError, RuntimeError):
        return None


def _checksum(described: dict[str, Any], tensors: dict[str, Tensor]) -> int:
    found = zlib.crc32(json.dumps(described, sort_keys=True).encode("utf-8", "surrogatepass"))
    for name in sorted(tensors):
        tensor = tensors[name]
        found = zlib.crc32(f"{name} {tensor.dtype} {list(tensor.shape)}".encode(), found)
        found = zlib.crc32(tensor.numpy().tobytes(), found)
    return found
