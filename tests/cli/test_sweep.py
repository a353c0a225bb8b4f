"""`optrode sweep` as a person uses it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import optrode as op
from optrode.cli import run

PAIR = ["--raw", "--base", "The cat sat on the mat", "--donor", "The cat lay on the mat"]


@pytest.fixture(autouse=True)
def tiny(llama: op.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optrode.cli.common.load_model", lambda name: llama)


def test_a_table_of_the_largest_and_a_line_of_the_work(capsys: pytest.CaptureFixture[str]):
    assert run(["sweep", "tiny", *PAIR, "--answer", "a", "--against", "b", "--top", "3"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("logit difference: base ") and out.count("█") >= 3 and len(out.strip().splitlines()) == 5
    assert "computed by columns" in err and "saved" in err and "without effect" in err


def test_json_and_files(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    path = tmp_path / "heads.json"
    options = ["--sites", "layers.*.attn.heads", "--each", "head", "--metric", "kl", "--to", str(path), "--json"]
    assert run(["sweep", "tiny", *PAIR, *options]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["cells"] == 12 and said["base"] == pytest.approx(0, abs=1e-5) and said["saved"] == str(path)
    loaded = op.Map.load(path)
    assert list(loaded.labels) == ["layer", "head"] and float(said["top"][0]["value"]) == loaded.values.max()


def test_an_ablation(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    path = tmp_path / "map.html"
    given = ["--raw", "--base", "The cat", "--donor", "zero", "--answer", "a", "--metric", "probability"]
    assert run(["sweep", "tiny", *given, "--sites", "layers.*.mlp.out", "--to", str(path)]) == 0
    assert "vega" in path.read_text() and "donor" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "no answer to measure"),
        (["--answer", "a", "--metric", "kl"], "leave --answer"),
        (["--answer", "a", "--against", "b", "--metric", "probability"], "leave --against out"),
        (["--answer", "a", "--metric", "loss"], "is not known"),
        (["--answer", "a", "--to", "map.pkl"], "no known format"),
        (["--answer", "The Eiffel"], "tokens"),
        (["--answer", "a", "--each", "heads"], "did you mean"),
    ],
)
def test_wrong_options_get_one_line(options: list[str], says: str, capsys: pytest.CaptureFixture[str]):
    assert run(["sweep", "tiny", *PAIR, *options]) == 1
    err = capsys.readouterr().err.strip().splitlines()
    assert len(err) == 1 and err[0].startswith("optrode: ") and says in err[0]


def test_a_plan(capsys: pytest.CaptureFixture[str]):
    command = ["sweep", "tiny", *PAIR, "--answer", "a", "--plan"]
    assert run(command) == 0
    assert "plan of a sweep" in capsys.readouterr().out
    assert run([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["patches"] > 0
