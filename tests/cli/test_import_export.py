"""`optrode import` and `optrode export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import optrode as op
from optrode import edits
from optrode.cli import run

V = torch.arange(1.0, 33.0)


@pytest.fixture
def tiny(tmp_path: Path, llama: op.Model, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("optrode.cli.common.load_model", lambda name: llama)
    (edits.add("layers.1.out", V) * 2).save("a.edit")
    return tmp_path


def test_there_and_back(tiny: Path, llama: op.Model, capsys: Any) -> None:
    assert run(["export", "a.edit", "--to", "a.gguf", "--strength", "0.5"]) == 0
    assert capsys.readouterr().out == "control vector: a.gguf\n"
    assert run(["import", "a.gguf", "--out", "b.edit"]) == 0
    said = capsys.readouterr()
    found = op.load_edit("b.edit")
    assert said.out == f"{found.explain()}\n" and said.err == "edit: b.edit\n"
    assert torch.equal(found.operator.vector, V) and not found.provenance.fingerprint
    assert run(["import", "a.gguf", "--out", "c.edit", "--model", "tiny", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["edit"] == "c.edit"
    assert op.load_edit("c.edit").provenance.fingerprint["name"] == llama.name


def test_folded_weights_are_a_checkpoint(tiny: Path, llama: op.Model, prompts: list[str], capsys: Any) -> None:
    assert run(["export", "a.edit", "--to", "folded", "--model", "tiny", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"folded weights": "folded"}
    with llama.edited(op.load_edit("a.edit")):
        wanted = llama.read(prompts, "logits")["logits"]
    got = op.load(tiny / "folded").read(prompts, "logits")
    mask = got.batch.mask
    torch.testing.assert_close(got["logits"][mask], wanted[mask], atol=1e-3, rtol=1e-3)
    assert run(["export", "a.edit", "--to", "folded", "--model", "tiny"]) == 1
    assert "name a new folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["import", "a.edit", "--out", "x.txt"], "ends with .edit"),
        (["import", "nothing.gguf", "--out", "x.edit"], "there is no file or folder"),
        (["import", "noise", "--out", "x.edit"], "nothing that can be imported"),
        (["export", "a.edit", "--to", "x.onnx"], "use .gguf"),
        (["export", "a.edit", "--to", "folder"], "--model"),
        (["export", "first.edit", "--to", "x.gguf"], "nothing after block 0"),
        (["export", "prompt.edit", "--to", "x.gguf"], "no PrefixEdit"),
    ],
)
def test_what_cannot_be_done_is_one_line(tiny: Path, capsys: Any, arguments: list[str], message: str) -> None:
    (tiny / "noise").write_bytes(b"noise")
    edits.add("layers.0.out", V).save("first.edit")
    edits.prompt("Be kind.").save("prompt.edit")
    before = set(tiny.iterdir())
    assert run(arguments) == 1
    said = capsys.readouterr()
    assert message in said.err and len(said.err.splitlines()) == 1 and said.out == ""
    assert set(tiny.iterdir()) == before
