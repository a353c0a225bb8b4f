"""`optrode read --to` and `optrode store` as a person uses them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import optrode as op
import optrode.store.run
from optrode.cli import run


@pytest.fixture
def tiny(llama: op.Model, monkeypatch: pytest.MonkeyPatch) -> op.Model:
    monkeypatch.setattr("optrode.cli.common.load_model", lambda name: llama)
    return llama


@pytest.fixture
def data(texts: list[str], tmp_path: Path) -> str:
    (tmp_path / "d.txt").write_text("\n".join(texts))
    return str(tmp_path / "d.txt")


def test_a_harvest_and_what_is_said_of_it(tiny: op.Model, data: str, tmp_path: Path, capsys: Any) -> None:
    to = str(tmp_path / "acts")
    command = ["read", "tiny", data, "--sites", "layers.1.out", "--to", to, "--tokens", "300", "--dtype", "float16"]
    assert run(command) == 0
    out = capsys.readouterr()
    assert "layers.1.out" in out.out and "float16" in out.out and "300 tokens of" in out.err
    assert len(op.open(to)) == 300
    assert run([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"] == 300 and found["complete"] and found["recipe"]["sites"][0]["max_abs"] > 0
    assert run(["store", "info", to, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found
    assert run([*command[:-1], "bfloat16"]) == 1
    assert "is another harvest: its dtype is 'float16', not 'bfloat16'" in capsys.readouterr().err


def test_verify_and_repair(tiny: op.Model, data: str, tmp_path: Path, capsys: Any) -> None:
    to = tmp_path / "acts"
    assert run(["read", "tiny", data, "--to", str(to), "--shard-rows", "100"]) == 0
    before = op.open(to).hash
    assert run(["store", "verify", str(to)]) == 0
    assert capsys.readouterr().out.endswith("no damage\n")
    path = to / "shard-00001.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert run(["store", "verify", str(to)]) == 1
    assert capsys.readouterr().out == "shard 1, layers.2.out: damaged in 1 of 1 blocks\n"
    assert run(["store", "repair", str(to), "--drop"]) == 0
    out = capsys.readouterr()
    assert out.out.endswith("1 shard dropped\n") and "not complete" in out.err
    assert run(["store", "repair", str(to), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["store"]["complete"]
    assert op.open(to).hash == before


def test_stopping_says_how_to_go_on(
    tiny: op.Model, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def interrupted(*arguments: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(optrode.store.run.HarvestRun, "_forward", interrupted)
    assert run(["read", "tiny", data, "--to", str(tmp_path / "acts")]) == 130
    assert "stopped: 0 rows are safe in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["read", "tiny", "--to", "acts"], "--to takes one file"),
        (["read", "tiny", "a.txt", "b.txt", "--to", "acts"], "--to takes one file"),
        (["read", "tiny", "absent.txt", "--to", "acts"], "there is no data at 'absent.txt'"),
        (["store", "info", "absent"], "there is no store at 'absent'"),
        (["store", "verify", "absent"], "there is no store at 'absent'"),
        (["store", "repair", "absent"], "there is no store at 'absent'"),
    ],
)
def test_wrong_commands_get_one_line(tiny: op.Model, arguments: list[str], says: str, capsys: Any) -> None:
    assert run(arguments) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and says in lines[0]
    assert not Path("acts").exists()
