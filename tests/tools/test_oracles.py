"""Kept results of other programs: none is missing, and none is older than the script that is said to have made it."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NAMES = sorted(
    path.stem
    for path in (ROOT / "tools" / "oracles").glob("*.py")
    if "\nORACLE = Oracle(" in path.read_text(encoding="utf-8")
)


@pytest.fixture
def oracles(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("tools.oracles.oracle")


def test_they_are_found_by_their_files(oracles: Any) -> None:
    assert {"captum", "pytorch_ood", "repeng", "sae_lens", "steering_vectors", "timm"} <= set(NAMES)
    assert oracles.names() == NAMES, "every other file of the folder is machinery, and named so"


@pytest.mark.parametrize("name", NAMES)
def test_no_kept_file_is_stale(oracles: Any, name: str) -> None:
    oracle, measured = oracles.find(name)
    assert callable(measured)
    assert oracles.state(name) == "fresh", f"run python -m tools.oracles {name}"
    about = oracles.about(oracle.path)
    versions = json.loads(about["versions"])
    for requirement in (*oracle.bare, *oracle.requires):
        package, _, pinned = requirement.partition("==")
        assert pinned and versions[package] == pinned, f"{requirement} is not what {oracle.fixture} was made with"
    assert oracle.path.stat().st_size < 200_000, "a kept file is small"


def test_a_changed_script_makes_its_file_stale(oracles: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for path in oracles.HERE.glob("*.py"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(oracles, "HERE", tmp_path)
    assert oracles.state("captum") == "fresh"
    changed = tmp_path / "captum.py"
    changed.write_bytes(changed.read_bytes().replace(b"\n", b"\r\n"))
    assert oracles.state("captum") == "fresh", "line ends of a checkout are no change"
    changed.write_text(changed.read_text() + "# changed\n")
    assert oracles.state("captum") == "stale"


def test_the_list_names_every_oracle(oracles: Any) -> None:
    done = subprocess.run([sys.executable, "-m", "tools.oracles"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert [line.split()[0] for line in done.stdout.splitlines()] == oracles.names()


def test_an_unknown_oracle_is_refused() -> None:
    done = subprocess.run([sys.executable, "-m", "tools.oracles", "nothing"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "there is no oracle nothing" in done.stderr
