"""`optrode generate` with JSONL and as a stream."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import optrode as op
from optrode import edits
from optrode.cli import replies, run
from optrode.edits import Provenance

OUT = "layers.1.out"
SHORT = ["--max-new-tokens", "6"]
LINES: list[Any] = [
    {"id": 7, "prompt": "The cat", "note": "é\u2028x"},
    {"id": 8, "messages": [{"role": "user", "content": "Where does the Eiffel Tower stand?"}]},
    "Answer.",
    {"prompt": "dog", "nested": {"a": [1, 2.5, None]}},
    {"id": 9, "prompt": "Answer in one word."},
]
ASKED = ["The cat", LINES[1]["messages"], "Answer.", "dog", "Answer in one word."]


@pytest.fixture
def tiny(llama: op.Model, monkeypatch: pytest.MonkeyPatch) -> op.Model:
    """Commands that load a model get the tiny one."""
    monkeypatch.setattr("optrode.cli.common.load_model", lambda name: llama)
    return llama


def direction(number: int) -> torch.Tensor:
    return 3 * torch.randn(32, generator=torch.Generator().manual_seed(100 + number))


@pytest.fixture
def files(tiny: op.Model, tmp_path: Path) -> dict[str, str]:
    """Two edits and a prompt as files, by name."""
    origin = Provenance({"name": "tiny", **tiny.fingerprint})
    made = {name: edits.add(OUT, direction(number)).with_provenance(origin) for number, name in enumerate("ab")}
    return {name: str(edit.save(tmp_path / f"{name}.edit")) for name, edit in made.items()} | {
        "prompt": str(edits.prompt("You are a cat.").save(tmp_path / "prompt.edit"))
    }


def write(path: Path, lines: list[Any]) -> str:
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return str(path)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("optrode: "), lines
    return lines[0]


@pytest.mark.parametrize("rows", ["16", "2", "1"])
def test_every_line_gets_a_reply_and_keeps_its_fields(rows: str, tiny: op.Model, tmp_path: Path, capsys: Any):
    source, out = write(tmp_path / "in.jsonl", LINES), tmp_path / "new" / "out.jsonl"
    assert run(["generate", "-m", "tiny", "--in", source, "--out", str(out), "--rows", rows, *SHORT]) == 0
    found = read(out)
    assert [line.pop("completion") for line in found] == tiny.generate(ASKED, max_new_tokens=6)
    assert len({line.pop("run") for line in found}) == 1
    assert found == [line if isinstance(line, dict) else {"prompt": line} for line in LINES]
    said = capsys.readouterr()
    assert said.out == "" and said.err == f"5 replies written to {out}\n"


def test_standard_input_and_output(tiny: op.Model, monkeypatch: pytest.MonkeyPatch, capsys: Any):
    monkeypatch.setattr("sys.stdin", io.StringIO('{"prompt": "The cat"}\n\n"dog"\n'))
    assert run(["generate", "-m", "tiny", "--in", "-", *SHORT]) == 0
    said = capsys.readouterr()
    found = [json.loads(line) for line in said.out.splitlines()]
    assert [line["completion"] for line in found] == tiny.generate(["The cat", "dog"], max_new_tokens=6)
    assert said.err == "2 replies written\n"


def test_prompts_of_the_command_line_can_be_written_to_a_file(tiny: op.Model, tmp_path: Path):
    out = tmp_path / "out.jsonl"
    assert run(["generate", "-m", "tiny", "The cat", "dog", "--out", str(out), *SHORT]) == 0
    assert [line["prompt"] for line in read(out)] == ["The cat", "dog"]


@pytest.mark.parametrize("rows", ["16", "2"])
def test_lines_have_edits_and_strengths_of_their_own(rows: str, tiny: op.Model, files: Any, tmp_path: Path):
    lines = [
        {"prompt": "The cat"},
        {"prompt": "The cat", "strength": 0},
        {"prompt": "The cat", "strength": -2.5},
        {"prompt": "The cat", "edit": files["b"]},
        {"prompt": "The cat", "edits": [files["a"], files["b"]], "strength": 2},
        {"prompt": "The cat", "edits": []},
    ]
    a, b = edits.add(OUT, direction(0)), edits.add(OUT, direction(1))
    wanted = [a * 0.5, None, a * -2.5, b * 0.5, a * 2 >> b * 2, None]
    out = tmp_path / "out.jsonl"
    command = ["generate", "-e", files["a"], "--strength", "0.5", "--in", write(tmp_path / "in.jsonl", lines)]
    assert run([*command, "--out", str(out), "--rows", rows, "--beside", *SHORT]) == 0
    plain = tiny.generate("The cat", max_new_tokens=6)
    found = read(out)
    assert {line["unedited"] for line in found} == {plain}
    for number, (line, edit) in enumerate(zip(found, wanted, strict=True)):
        if edit is None:
            assert line["completion"] == plain, number
            continue
        with tiny.edited(edit):
            assert line["completion"] == tiny.generate("The cat", max_new_tokens=6), number
    assert len({line["completion"] for line in found}) >= 4


def test_a_prompt_edit_goes_for_all_lines(tiny: op.Model, files: Any, tmp_path: Path, capsys: Any):
    lines = [{"prompt": "The cat", "strength": 1}, {"prompt": "dog", "edit": files["b"]}]
    source, out = write(tmp_path / "in.jsonl", lines), tmp_path / "out.jsonl"
    command = ["generate", "-e", files["prompt"], "-e", files["a"], "--in", source, "--out", str(out)]
    assert run([*command, *SHORT]) == 0
    for line, edit in zip(read(out), [edits.add(OUT, direction(0)), edits.add(OUT, direction(1))], strict=True):
        with tiny.edited(edits.prompt("You are a cat."), edit):
            assert line["completion"] == tiny.generate(line["prompt"], max_new_tokens=6)
    capsys.readouterr()
    source = write(tmp_path / "in.jsonl", [{"prompt": "dog", "edit": files["prompt"]}])
    assert run(["generate", "-m", "tiny", "--in", source]) == 1
    assert "line 1: " in (said := error_line(capsys)) and "is for all prompts" in said


# A run that was stopped ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", ["0", "1.5"])
@pytest.mark.parametrize("cut", ["nothing", "one byte", "half a line", "a line", "all but a line", "all"])
def test_a_stopped_run_goes_on(cut: str, temperature: str, tiny: op.Model, tmp_path: Path, capsys: Any):
    source, out = write(tmp_path / "in.jsonl", LINES), tmp_path / "out.jsonl"
    command = ["generate", "-m", "tiny", "--in", source, "--out", str(out), "--rows", "2", *SHORT]
    command += ["--temperature", temperature]
    assert run(command) == 0
    whole = out.read_bytes()
    lines = whole.splitlines(keepends=True)
    sizes = {
        "nothing": 0, "one byte": 1, "half a line": len(b"".join(lines[:3])) + 5, "a line": len(whole) - len(lines[-1]),
        "all but a line": len(lines[0]), "all": len(whole),
    }  # fmt: skip
    out.write_bytes(whole[: sizes[cut]])
    capsys.readouterr()
    assert run(command) == 0
    assert out.read_bytes() == whole
    kept = {"half a line": 2, "a line": 4, "all": 5}.get(cut, 0)
    assert capsys.readouterr().err == f"{5 - kept} replies written to {out}" + (
        f", {kept} were there\n" if kept else "\n"
    )


def test_an_interrupt_leaves_whole_lines(tiny: op.Model, tmp_path: Path, monkeypatch: Any, capsys: Any):
    source, out = write(tmp_path / "in.jsonl", LINES), tmp_path / "out.jsonl"
    command = ["generate", "-m", "tiny", "--in", source, "--out", str(out), "--rows", "2", *SHORT]
    own, calls = replies._replies, []

    def interrupted(*given: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return own(*given)

    monkeypatch.setattr(replies, "_replies", interrupted)
    assert run(command) == 130
    assert len(read(out)) == 4
    assert run(command) == 0
    assert [line["completion"] for line in read(out)] == tiny.generate(ASKED, max_new_tokens=6)


@pytest.mark.parametrize("change", ["settings", "lines", "fewer lines", "no replies", "another edit"])
def test_replies_of_another_run_are_not_mixed_with_these(
    change: str, tiny: op.Model, files: Any, tmp_path: Path, capsys
):
    source, out = write(tmp_path / "in.jsonl", LINES[:3]), tmp_path / "out.jsonl"
    command = ["generate", "-e", files["a"], "--in", source, "--out", str(out)]
    assert run([*command, *SHORT]) == 0
    before = out.read_bytes()
    if change == "lines":
        write(Path(source), [LINES[1], *LINES[:2]])
    elif change == "fewer lines":
        write(Path(source), LINES[:2])
    elif change == "no replies":
        before = b"something\n"
        out.write_bytes(before)
    elif change == "another edit":
        origin = Provenance({"name": "tiny", **tiny.fingerprint})
        edits.add(OUT, direction(5)).with_provenance(origin).save(files["a"])
    capsys.readouterr()
    assert run([*command, *(SHORT if change != "settings" else ["--max-new-tokens", "7"])]) == 1
    assert "name another file, or remove it" in error_line(capsys) and out.read_bytes() == before


def test_more_lines_may_follow(tiny: op.Model, tmp_path: Path):
    source, out = write(tmp_path / "in.jsonl", LINES[:4]), tmp_path / "out.jsonl"
    command = ["generate", "-m", "tiny", "--in", source, "--out", str(out), "--rows", "2", *SHORT]
    assert run(command) == 0
    write(Path(source), LINES)
    assert run(command) == 0
    assert [line["completion"] for line in read(out)] == tiny.generate(ASKED, max_new_tokens=6)


# A stream ------------------------------------------------------------------------------------------------------------


def test_a_stream_prints_the_completion(tiny: op.Model, files: Any, capsys: Any):
    assert run(["generate", "-m", "tiny", "--stream", "The cat", *SHORT]) == 0
    assert capsys.readouterr().out == tiny.generate("The cat", max_new_tokens=6) + "\n"
    assert run(["generate", "-e", files["a"], "--stream", "The cat", *SHORT]) == 0
    said = capsys.readouterr()
    with tiny.edited(edits.add(OUT, direction(0))):
        assert said.out == tiny.generate("The cat", max_new_tokens=6) + "\n"
    assert "1 of 1 matched sites ran in 6 forwards" in said.err


# Wrong commands ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--in", "absent.jsonl"], "there is no file 'absent.jsonl'"),
        (["--in", "IN", "Hello"], "--in brings the prompts"),
        (["--in", "IN", "--json"], "JSONL already"),
        (["--in", "IN", "--stream"], "JSONL already"),
        (["--out", "x.jsonl", "--stream", "Hello"], "JSONL already"),
        (["--stream", "Hello", "Hi"], "but there are 2 prompts"),
        (["--stream", "--beside", "Hello"], "leave --json and --beside out"),
        (["--in", "IN", "--rows", "0"], "--rows is 0"),
        (["--in", "IN", "--out", "."], "is a folder"),
    ],
)
def test_what_does_not_go_together(arguments: list[str], says: str, tiny: op.Model, tmp_path: Path, capsys: Any):
    source = write(tmp_path / "in.jsonl", LINES[:1])
    assert run(["generate", "-m", "tiny", *(source if item == "IN" else item for item in arguments)]) == 1
    assert says in error_line(capsys)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "line 2 is no JSON"), ("{}", "line 2 has no prompt"), ('{"prompt": 3}', "line 2 has no prompt"),
        ('{"prompt": "a", "strength": "big"}', "line 2: strength must be a number"),
        ('{"prompt": "a", "strength": true}', "line 2: strength must be a number"),
        ('{"prompt": "a", "strength": NaN}', "line 2: strength must be a finite number"),
        ('{"prompt": "a", "edits": 3}', "line 2: edits must be"),
        ('{"prompt": "a", "edits": [3]}', "line 2: edits must be"),
        ('{"prompt": "a", "edit": "absent.edit"}', "there is no edit file"),
    ],
)  # fmt: skip
def test_a_wrong_line_is_named_before_anything_runs(line: str, says: str, tmp_path: Path, capsys: Any, monkeypatch):
    monkeypatch.setattr("optrode.cli.common.load_model", lambda name: pytest.fail("the model was loaded"))
    source = tmp_path / "in.jsonl"
    source.write_text('{"prompt": "a"}\n' + line + "\n")
    assert run(["generate", "-m", "tiny", "--in", str(source), "--out", str(tmp_path / "out.jsonl")]) == 1
    assert says in error_line(capsys) and not (tmp_path / "out.jsonl").exists()


def test_files_that_are_no_text_or_empty(tmp_path: Path, capsys: Any):
    source = tmp_path / "in.jsonl"
    for content, says in ((b"\xff\xfe\x00", "no text in UTF-8"), (b"\n \n", "holds no prompt")):
        source.write_bytes(content)
        assert run(["generate", "-m", "tiny", "--in", str(source)]) == 1
        assert says in error_line(capsys)
