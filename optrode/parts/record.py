"""The run record that every result carries: seed, versions, hashes and the command that repeats it."""

from __future__ import annotations

import platform
import sys
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib import metadata
from typing import Any

from ..version import __version__

_PACKAGES = ("torch", "transformers", "numpy", "scikit-learn")


def versions() -> dict[str, str]:
    """Versions of optrode, Python and the libraries that numbers depend on."""
    found = {"optrode": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


@dataclass
class RunRecord:
    """Starts its clock when made. `arguments` is what `optrode rerun` passes to the command line again."""

    arguments: list[str] = field(default_factory=list)
    seed: int = 0
    hashes: dict[str, str] = field(default_factory=dict)
    started: str = field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))
    _clock: float = field(default_factory=time.perf_counter, repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with the seconds since the start."""
        return {
            "seed": self.seed,
            "versions": versions(),
            "command": " ".join(["optrode", *map(_quoted, self.arguments)]) if self.arguments else "",
            "arguments": self.arguments,
            "started": self.started,
            "seconds": round(time.perf_counter() - self._clock, 2),
            "hashes": self.hashes,
            "machine": f"{platform.system()} {platform.machine()}, {_threads()} threads",
        }


def _threads() -> int:
    torch = sys.modules.get("torch")
    return torch.get_num_threads() if torch else 1


def _quoted(text: str) -> str:
    import shlex

    return shlex.quote(text)
