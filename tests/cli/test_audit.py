"""`optrode audit` as a person uses it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import optrode as op
from optrode.cli import run
from optrode.edits import add


@pytest.fixture
def tiny(llama: op.Model, monkeypatch: pytest.MonkeyPatch) -> op.Model:
    monkeypatch.setattr("optrode.cli.common.load_model", lambda name: llama)
    return llama


@pytest.fixture
def edit(tmp_path: Path) -> Path:
    vector = torch.randn(32, generator=torch.Generator().manual_seed(0))
    return add("layers.1.out", vector * 20, "all").save(tmp_path / "some.edit")


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "declined.txt"
    path.write_text("The cat?\nWhere is the tower?\nWho sat there?\n")
    return path


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_the_report_has_every_part(tiny, edit, prompts, capsys, monkeypatch):
    monkeypatch.setattr("optrode.parts.rules.declines.score", lambda reply, prompt="": 1.0)
    arguments = ["audit", str(edit), "--prompts", str(prompts), "--draws", "2", "--max-new-tokens", "4"]
    assert run(arguments) == 0
    out = capsys.readouterr().out
    for part in ("declined", "own refusal", "how universal", "perplexity", "2 random directions", "AUROC", "hides in"):
        assert part in out, part
    assert run([*arguments, "--json", "--strength", "0.5"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["refusals"]["before"]["value"] == 1 and len(found["refusals"]["random"]) == 2
    assert found["detection"]["foldable"] is True


def test_a_model_that_declines_nothing_is_told_in_one_line(tiny, edit, prompts, capsys):
    assert run(["audit", str(edit), "--prompts", str(prompts), "--max-new-tokens", "4"]) == 1
    assert "no refusal to weaken" in error_line(capsys)


def test_the_stand_in_is_for_one_model(tiny, edit, capsys):
    assert run(["audit", str(edit)]) == 1
    assert "give --prompts FILE" in error_line(capsys)


@pytest.mark.parametrize("options", [["--draws", "-1"], ["--count", "0"]])
def test_wrong_numbers(tiny, edit, options, capsys):
    assert run(["audit", str(edit), *options]) == 1
    assert "must be" in error_line(capsys)
