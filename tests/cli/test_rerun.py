"""`optrode rerun` trusts a file with nothing: not with options, not with places, not with the terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from optrode.cli import run
from optrode.cli.command_rerun import checked
from optrode.errors import BadFile, BadInput
from optrode.report import read_report


@pytest.mark.parametrize("option", ["--out", "--out=/tmp/x", "-o", "-o/tmp/x", "--json", "--"])
def test_a_record_names_no_place_to_write_to(option: str):
    assert checked(["compare", "steering", "--method", "caa"], Path("a.json"))
    with pytest.raises(BadFile, match="does not repeat"):
        checked(["compare", "steering", option, "/tmp/x"], Path("a.json"))


@pytest.mark.parametrize("first", ["generate", "\x1b[2J\n" * 200, "../compare"])
def test_other_commands_are_refused_in_one_line(first: str):
    with pytest.raises(BadFile, match="does not repeat") as refused:
        checked([first], Path("a.json"))
    assert str(refused.value).isprintable() and len(str(refused.value)) < 400


@pytest.mark.parametrize(
    "versions", [{"torch\x1b[2J": "\n" * 500}, {"torch": [[1]] * 500}, ["torch"], "torch", 3, None]
)
def test_what_is_printed_steers_no_terminal(versions: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    record = {"arguments": ["compare", "a\x1b]0;x\x07"], "versions": versions}
    (tmp_path / "result.json").write_text(json.dumps({"record": record}))
    assert run(["rerun", str(tmp_path / "result.json"), "--show"]) == 0
    told = capsys.readouterr().err
    assert "optrode compare" in told and all(line.isprintable() and len(line) < 2100 for line in told.splitlines())


def test_json_that_is_deep(tmp_path: Path):
    deep = "[" * 100_000
    (tmp_path / "a.html").write_text(f'<script type="application/json" id="optrode-result">{deep}</script>')
    with pytest.raises(BadFile, match="carries no comparison result"):
        read_report(tmp_path / "a.html")
    (tmp_path / "a.jsonl").write_text(deep)
    from optrode.cli.common import gather_prompts
    from optrode.cli.replies import read_lines

    for read in (lambda: gather_prompts(None, tmp_path / "a.jsonl"), lambda: read_lines(tmp_path / "a.jsonl")):
        with pytest.raises(BadInput, match="line 1 is no JSON"):
            read()


def test_prompts_that_are_no_text(tmp_path: Path):
    from optrode.cli.common import gather_prompts

    (tmp_path / "a.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(BadInput, match="UTF-8"):
        gather_prompts(None, tmp_path / "a.txt")


@pytest.mark.parametrize("strength", ["1" + "0" * 400, "1e999", "NaN"])
def test_strengths_that_are_no_numbers(strength: str, tmp_path: Path):
    from optrode.cli.replies import read_lines

    (tmp_path / "a.jsonl").write_text(f'{{"prompt": "a", "strength": {strength}}}\n')
    with pytest.raises(BadInput, match="finite"):
        read_lines(tmp_path / "a.jsonl")
