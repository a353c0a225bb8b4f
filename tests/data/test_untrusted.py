"""Files of pairs that somebody made on purpose are refused in one short line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from optrode.data import read_behaviour
from optrode.errors import BadFile, BadInput, OptrodeError


def refused(path: Path, kind: type[OptrodeError]) -> str:
    with pytest.raises(kind) as told:
        read_behaviour(path)
    assert str(told.value).isprintable() and len(str(told.value)) < 400
    return str(told.value)


@pytest.mark.parametrize("line", ["[" * 100_000, '{"prompt": ' + "9" * 5000 + "}"])
def test_json_that_is_deep_or_has_endless_numbers(line: str, tmp_path: Path):
    (tmp_path / "a.jsonl").write_text(line)
    assert "line 1 is not valid JSON" in refused(tmp_path / "a.jsonl", BadFile)


def test_names_of_columns_are_cut(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"p\n" * 3000: "a", "\x1b[2J": "b"}))
    assert "has no column" in refused(tmp_path / "a.jsonl", BadInput)


def test_half_a_character_is_a_group_like_any_other(tmp_path: Path):
    rows = [{"prompt": f"{n}\ud800", "positive": f"a{n}", "negative": f"b{n}"} for n in range(36)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert len(read_behaviour(tmp_path / "a.jsonl").fit) == 12
