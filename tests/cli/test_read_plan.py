"""`optrode read` with --plan, --budget and --reduce."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import optrode as op
from optrode.cli import run


@pytest.fixture
def tiny(llama: op.Model, monkeypatch: pytest.MonkeyPatch) -> op.Model:
    monkeypatch.setattr("optrode.cli.common.load_model", lambda name: llama)
    return llama


def test_a_plan_is_printed_and_nothing_is_read(tiny: op.Model, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(op.Model, "read", lambda *args, **options: pytest.fail("it was read"))
    assert run(["read", "tiny", "The cat", "-s", "layers.1.out", "--plan"]) == 0
    shown = capsys.readouterr().out
    assert "2 run, 1 skipped" in shown and "layers.1.out" in shown and "(exact)" in shown
    assert run(["read", "tiny", "The cat", "-s", "layers.1.out", "--plan", "--budget", "1kB", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert planned["verdict"] == "refused" and planned["sites"]["layers.1.out"]["axes"] == [
        "example",
        "token",
        "feature",
    ]


def test_a_budget_holds(tiny: op.Model, capsys, tmp_path: Path) -> None:
    asked = ["read", "tiny", *["The cat sat on the mat"] * 9, "-s", "layers.*.*"]
    assert run([*asked, "--budget", "120kB", "--out", str(tmp_path / "acts.npz")]) == 0
    assert (tmp_path / "acts.npz").stat().st_size > 150_000
    capsys.readouterr()
    assert run([*asked, "--budget", "1kB"]) == 1
    assert "needs" in capsys.readouterr().err


def test_a_reduction_keeps_one_vector_a_prompt(tiny: op.Model, capsys) -> None:
    assert run(["read", "tiny", "The cat", "a dog", "-s", "layers.1.out", "--reduce", "mean", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sites"]["layers.1.out"]["shape"] == [2, 32]
    assert run(["read", "tiny", "The cat", "--reduce", "men"]) == 1
    assert "did you mean mean" in capsys.readouterr().err


def test_a_harvest_takes_none_of_them(tiny: op.Model, capsys, tmp_path: Path) -> None:
    assert run(["read", "tiny", "data.txt", "--to", str(tmp_path / "store"), "--budget", "1GB"]) == 1
    assert "--to" in capsys.readouterr().err and not (tmp_path / "store").exists()
