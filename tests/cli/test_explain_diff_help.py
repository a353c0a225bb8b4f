"""`optrode explain`, `diff` and `help`."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import optrode as op
from optrode import edits, errors
from optrode.cli import pages, run
from optrode.errors import BadInput, OptrodeError, UnknownName

OUT = "layers.1.out"
V = torch.arange(1.0, 33.0)
KINDS = sorted(
    name
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, OptrodeError) and kind is not OptrodeError
)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    edits.add(OUT, V).save("a.edit")
    (edits.add(OUT, V) * 2).save("b.edit")
    return tmp_path


def test_explain(files: Path, llama: op.Model, monkeypatch: pytest.MonkeyPatch, capsys: Any):
    assert run(["explain", "a.edit"]) == 0
    said = capsys.readouterr()
    assert said.out == f"{edits.add(OUT, V).explain()}\n" and said.err == ""
    assert run(["explain", "a.edit", "b.edit"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("# a.edit\n") and "\n\n# b.edit\n" in out
    monkeypatch.setattr("optrode.cli.common.load_model", lambda name: llama)
    assert run(["explain", "b.edit", "--model", "tiny", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["b.edit"]
    assert told["parts"][0]["formula"] == "h + 2 * vector" and told["here"].startswith("fits ")
    assert run(["explain", "c.edit"]) == 1 and "there is no edit file" in capsys.readouterr().err


def test_diff(files: Path, capsys: Any):
    assert run(["diff", "a.edit", "b.edit"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split() == ["strength", "a.edit:", "1,", "b.edit:", "2"]
    assert run(["diff", "a.edit", "a.edit"]) == 0 and capsys.readouterr().out == "no difference\n"
    assert run(["diff", "a.edit", "b.edit", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["differences"]
    assert (found["what"], found["first"], found["second"]) == ("strength", "1", "2")
    (files / "other").mkdir()
    (files / "a.edit").rename("other/b.edit")
    assert run(["diff", "other/b.edit", "b.edit"]) == 0 and "other/b.edit: 1" in capsys.readouterr().out


@pytest.mark.parametrize("name", KINDS)
def test_every_error_has_a_page_that_help_prints(name: str, capsys: Any):
    assert run(["help", name]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"# {name}\n") and "**Symptom.**" in out and "<!--" not in out


def test_help_lists_its_topics(capsys: Any):
    assert run(["help"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert all(name in out for name in KINDS) and "traps" in out
    assert set(pages.topics()) == {*KINDS, "traps"}
    assert run(["help", "wrongmodel"]) == 0 and capsys.readouterr().out.startswith("# WrongModel")
    assert run(["help", "traps"]) == 0 and "The first token is huge" in capsys.readouterr().out
    assert run(["help", "WrongModle"]) == 1 and "did you mean WrongModel" in capsys.readouterr().err


def test_help_in_a_terminal_has_no_markup(monkeypatch: pytest.MonkeyPatch):
    from rich.console import Console

    shown = io.StringIO()
    monkeypatch.setattr("optrode.cli.common.console", lambda: Console(file=shown, force_terminal=True, width=100))
    assert run(["help", "traps"]) == 0
    text = re.sub(r"\x1b\[[0-9;]*m", "", shown.getvalue())
    assert "The first token is huge" in text and "token mask" in text
    assert not any(mark in text for mark in ("##", "](", ".md", "<!--"))


def test_messages_name_their_page(files: Path, capsys: Any):
    assert run(["explain", "absent.edit"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("(see: optrode help MissingFile)")
    problem = BadInput("a line")
    assert str(problem) == "a line" and problem.help == "optrode help BadInput"
    if hasattr(problem, "add_note"):
        import pickle
        import traceback

        assert "".join(traceback.format_exception(problem)).endswith("BadInput: a line\nsee: optrode help BadInput\n")
        assert pickle.loads(pickle.dumps(problem)).__notes__ == ["see: optrode help BadInput"]


def test_pages_of_an_installed_package_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "errors").mkdir()
    (tmp_path / "errors" / "BadInput.md").write_text("# BadInput\n\nMine.\n")
    (tmp_path / "traps.md").write_text("# Traps\n\nA few.\n")
    monkeypatch.setattr(pages, "FOLDERS", (tmp_path, *pages.FOLDERS))
    assert pages.page("BadInput") == "# BadInput\n\nMine.\n" and pages.headline("traps") == "A few."
    monkeypatch.setattr(pages, "FOLDERS", (tmp_path / "nowhere",))
    with pytest.raises(errors.MissingFile, match="no pages"):
        pages.topics()
    monkeypatch.undo()
    with pytest.raises(UnknownName):
        pages.page("index")
