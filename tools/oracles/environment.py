"""The environment of one oracle: its own packages on top of the main environment's, which it cannot change."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

from .oracle import HERE, ROOT, Oracle

FOLDER = ROOT / ".oracles"


def make(name: str, oracle: Oracle) -> Path:
    """The interpreter of an oracle's environment, made anew when its requirements have changed.

    Raises `CalledProcessError` where something cannot be installed.
    """
    folder = FOLDER / name.replace("_", "-")
    python = folder / "bin" / "python"
    stamp = folder / ".installed"
    wanted = "\n".join([*oracle.requires, "--no-deps", *oracle.bare, sysconfig.get_paths()["purelib"]])
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    _run(sys.executable, "-m", "venv", "--clear", "--without-pip", str(folder))
    _below(python)
    if oracle.requires:
        _install(python, *oracle.requires)
    if oracle.bare:
        _install(python, "--no-deps", *oracle.bare)
    stamp.write_text(wanted)
    return python


def run(name: str, oracle: Oracle) -> None:
    """Run an oracle in its environment, where it writes its file."""
    python = make(name, oracle)
    shims = os.pathsep.join(str(HERE / "shims" / shim) for shim in oracle.shims)
    settings = {"PYTHONPATH": shims, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    _run(str(python), "-m", "tools.oracles", "--here", name, settings=settings)


def _below(python: Path) -> None:
    """Let an environment find the main one's packages, after its own."""
    found = _run(str(python), "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])", quiet=True)
    (Path(found.strip()) / "main_environment.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")


def _install(python: Path, *requirements: str) -> None:
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", "install", "--quiet"]
    _run(*pip, "-c", "constraints.txt", *requirements)


def _run(*command: str, settings: dict[str, str] | None = None, quiet: bool = False) -> str:
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **(settings or {})}, check=True, text=True,
        stdout=subprocess.PIPE if quiet else None,
    )  # fmt: skip
    return done.stdout or ""
