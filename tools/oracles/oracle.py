"""What an oracle is, how one is found, and what the file that it writes says of itself."""

from __future__ import annotations

import hashlib
import importlib
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from torch import Tensor

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# Files of this folder that are no oracles.
_MACHINERY = {"__init__", "__main__", "oracle", "environment", "tiny"}
# Releases that numbers may depend on, beside those of the reference itself.
_VERSIONS = ("torch", "transformers", "numpy")

Measured = tuple[dict[str, Tensor], dict[str, str]]


@dataclass(frozen=True)
class Oracle:
    """One reference. `fixture`: the file that it writes, from the root of the repository.

    `requires`: pinned requirements that are installed with what they need, as far as the main environment lacks it.
    `bare`: those that are installed without, since what they ask for would replace or break what is there. `shims`:
    folders of `tools/oracles/shims` that stand in for packages they import and do not use.
    """

    fixture: str
    requires: tuple[str, ...] = ()
    bare: tuple[str, ...] = ()
    shims: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        return ROOT / self.fixture

    @property
    def packages(self) -> tuple[str, ...]:
        """Names of the packages that are the reference."""
        return tuple(requirement.partition("==")[0] for requirement in (*self.bare, *self.requires))


def names() -> list[str]:
    """Every oracle of this folder, by the name of its file."""
    return sorted(path.stem for path in HERE.glob("*.py") if path.stem not in _MACHINERY)


def find(name: str) -> tuple[Oracle, Callable[[], Measured]]:
    """What an oracle declares, and the function that runs it. Importing one needs the main environment alone."""
    module = importlib.import_module(f"tools.oracles.{name}")
    return module.ORACLE, module.measured


def script_hash(name: str) -> str:
    """Hash of the script as it is committed, whatever the line ends of the checkout."""
    return hashlib.sha256((HERE / f"{name}.py").read_bytes().replace(b"\r\n", b"\n")).hexdigest()


def about(path: Path) -> dict[str, str]:
    """What a kept file says of itself, its tensors unread."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return dict(file.metadata() or {})


def state(name: str) -> str:
    """`fresh`, `stale` where the script has changed since, or `missing`."""
    path = find(name)[0].path
    if not path.is_file():
        return "missing"
    return "fresh" if about(path).get("script") == script_hash(name) else "stale"


def write(name: str) -> str:
    """Run an oracle where its reference is installed, and write its file. Gives a line that says what was written."""
    from safetensors.torch import save

    oracle, measured = find(name)
    tensors, texts = measured()
    versions = {package: metadata.version(package) for package in (*oracle.packages, *_VERSIONS)}
    oracle.path.parent.mkdir(parents=True, exist_ok=True)
    kept: dict[str, Any] = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    data = save(kept, {**texts, "versions": json.dumps(versions), "script": script_hash(name)})
    oracle.path.write_bytes(_in_order(data))
    count = sum(value.numel() for value in kept.values())
    return f"{oracle.fixture}: {count} numbers, {oracle.path.stat().st_size} bytes"


def _in_order(data: bytes) -> bytes:
    """The same safetensors file with its texts in order, which the library shuffles: equal results are equal bytes."""
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data[8 + length :]
