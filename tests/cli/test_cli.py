"""The command line as a person uses it: output, exit codes, one-line errors, nothing half-written."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest

import optrode as op
from optrode.cli import run


@pytest.fixture
def tiny(llama: op.Model, monkeypatch: pytest.MonkeyPatch) -> op.Model:
    """Commands that load a model get the tiny one."""
    monkeypatch.setattr("optrode.cli.common.load_model", lambda name: llama)
    return llama


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("optrode: ")
    return lines[0]


COMMANDS = ("models", "sites", "read", "fit", "explain", "diff", "generate", "chat", "compare", "study", "sweep",
            "rerun", "systems", "help")  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"]) == 0
    assert f"Example: optrode {command}" in " ".join(capsys.readouterr().out.replace("│", " ").split())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"optrode {op.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["nonsense"], 2, "No such command"),
        (["read"], 2, "Missing argument.*; see optrode read --help"),
        (["read", "--site", "x"], 2, "--sites.*; see optrode read --help"),
        (["generate", "--temperature", "warm", "hi"], 2, "not a valid float|parse string as a number"),
        (["sites", "smollm-135m"], 1, "did you mean smollm2-135m"),
        (["sites", "no/folder/here"], 1, "there is no file or folder"),
        (["generate", "--edit", "absent.edit", "hi"], 1, "there is no edit file"),
        (["generate", "hi"], 1, "no model was named"),
        (["generate", "hi", "--temperature", "-1", "-m", "x"], 1, "must be 0"),
        (["compare", "stering"], 1, "did you mean steering"),
        (["compare", "steering", "--data", "sentimnt"], 1, "did you mean sentiment"),
        (["fit", "cca", "-m", "x"], 1, "did you mean .*caa"),
        (["fit", "caa", "-m", "x", "--set", "frm=letters"], 1, "did you mean form"),
        (["fit", "caa", "-m", "x", "--set", "form"], 1, "write name=value"),
        (["study", "caaa"], 1, "did you mean caa"),
        (["rerun", "absent.json"], 1, "there is no file"),
    ],
)
def test_wrong_commands_get_one_line(
    arguments: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    assert run(arguments) == code
    assert re.search(says, error_line(capsys))


def test_models_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "--json"]) == 0
    assert {"smollm2-135m", "minilm-l6"} <= {row["name"] for row in json.loads(capsys.readouterr().out)}


def test_sites(tiny: op.Model, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sites", "tiny", "layers.1.mlp.*"]) == 0
    assert "layers.1.mlp.hidden" in capsys.readouterr().out
    assert run(["sites", "tiny", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == set(tiny.table)
    assert run(["sites", "tiny", "layers.1.mpl.out"]) == 1
    assert "layers.1.mlp.out" in error_line(capsys)


@pytest.mark.parametrize("ending", ["npz", "safetensors", "csv"])
def test_read_saves_what_was_read(
    tiny: op.Model, tmp_path: Path, ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / f"acts.{ending}"
    assert run(["read", "tiny", "The cat", "--sites", "layers.1.out", "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    acts = op.read(tiny, ["The cat"], "layers.1.out")
    assert told["sites"]["layers.1.out"]["shape"] == list(acts["layers.1.out"].shape)
    assert told["layers_run"] == 2
    assert _saved(out).shape[-1] == acts["layers.1.out"].shape[-1]


def _saved(out: Path) -> Any:
    if out.suffix == ".npz":
        import numpy as np

        return np.load(out)["layers.1.out"]
    if out.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(out)["layers.1.out"]
    import pandas as pd

    return pd.read_csv(out, index_col=[0, 1]).drop(columns="text").to_numpy()


def test_a_failed_read_leaves_nothing(tiny: op.Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "acts.csv"
    assert run(["read", "tiny", "hi", "--sites", "layers.*.out", "--out", str(out)]) == 1
    assert "one site" in error_line(capsys)
    assert run(["read", "tiny", "hi", "--out", str(tmp_path / "acts.txt")]) == 1
    assert "no known format" in error_line(capsys)
    assert list(tmp_path.iterdir()) == []


def test_prompts_come_from_files_too(tiny: op.Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = tmp_path / "prompts.jsonl"
    lines.write_text('{"prompt": "The cat"}\n{"messages": [{"role": "user", "content": "Answer"}]}\n')
    command = ["read", "tiny", "--file", str(lines), "--sites", "layers.0.out", "--positions", "last_prompt", "--json"]
    assert run(command) == 0
    assert json.loads(capsys.readouterr().out)["sites"]["layers.0.out"]["shape"][0] == 2
    lines.write_text('{"text": "no prompt"}\n')
    assert run(command) == 1
    assert "line 1 has no prompt" in error_line(capsys)
    lines.write_text("")
    assert run(command) == 1
    assert "empty" in error_line(capsys)


def test_fit_then_generate(tiny: op.Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit = tmp_path / "mine.edit"
    pairs = tmp_path / "pairs.jsonl"
    words = ["cat", "dog", "mat", "door", "tower", "word", "weather", "capital"]
    rows = [
        {
            "prompt": f"How was the {word} {n}?",
            "positive": f"Sure {word} {n}.",
            "negative": f"You lay {n} {word}.",
            "group": f"{word}{n}",
        }
        for word in words
        for n in range(5)
    ]
    pairs.write_text("\n".join(map(json.dumps, rows)))
    fit = ["fit", "caa", "-m", "tiny", "--data", str(pairs), "--site", "layers.1.out", "--set", "form=replies"]
    assert run([*fit, "--out", str(edit)]) == 0
    capsys.readouterr()
    assert (
        run(
            [
                "generate",
                "-m",
                "tiny",
                "-e",
                str(edit),
                "--strength",
                "5",
                "--beside",
                "--json",
                "--max-new-tokens",
                "4",
                "Hi",
            ]
        )
        == 0
    )
    told = json.loads(capsys.readouterr().out)
    assert told["completions"][0].keys() == {"prompt", "completion", "unedited"}
    assert "1 of 1 matched sites ran" in told["receipt"]
    assert run(["generate", "-m", "tiny", "-e", str(edit), "--strength", "nan", "Hi"]) == 1
    assert "finite" in error_line(capsys)


def test_an_edit_of_another_model_is_refused(
    tiny: op.Model, gpt2: op.Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign = op.steering.ActAdd(prompts=("cat", "dog"), site="layers.1.in").fit(gpt2)
    foreign.save(tmp_path / "foreign.edit")
    assert run(["generate", "-m", "tiny", "-e", str(tmp_path / "foreign.edit"), "Hi"]) == 1
    assert "fitted on" in error_line(capsys)


def test_rerun_repeats_only_what_is_safe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "result.json"
    record: dict[str, Any] = {"arguments": ["compare", "steering", "--quick"], "versions": {"optrode": "0.0.0"}}
    file.write_text(json.dumps({"record": record}))
    assert run(["rerun", str(file), "--show"]) == 0
    told = capsys.readouterr().err
    assert "optrode compare steering --quick" in told
    assert "versions differ" in told
    for arguments in (["fit", "caa"], ["compare", "steering", "--out", "/"], ["rerun", "x"], "rm -rf", []):
        file.write_text(json.dumps({"record": {**record, "arguments": arguments}}))
        assert run(["rerun", str(file)]) == 1
        assert "run record" in error_line(capsys)


def test_what_the_system_refuses_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    def refused(*_: object) -> None:
        raise PermissionError(errno.EACCES, "no", "/proc/x.edit")

    monkeypatch.setattr("optrode.cli.common.load_model", refused)
    assert run(["sites", "tiny"]) == 1
    assert capsys.readouterr().err == "optrode: '/proc/x.edit' cannot be used: Permission denied\n"
