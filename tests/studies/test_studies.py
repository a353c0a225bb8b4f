"""What runs studies, and what every study and every committed result owes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from optrode import studies
from optrode.engine.progress import Steps
from optrode.errors import UnknownName
from optrode.parts.study import VERDICTS, Finding, Study, overall
from optrode.studies import SCHEMA, find_study, run_study, save_study, study_ids

RESULTS = sorted((Path(__file__).parents[2] / "studies" / "results").glob("*.json"))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A study in the place of the real ones, and what it was asked with."""
    asked: list[Any] = []

    def run(seeds: Sequence[int], full: bool, steps: Steps) -> list[Finding]:
        asked.append((tuple(seeds), full, type(steps)))
        return [
            Finding("c", "b", "m", "direction only", numbers={"x": float("nan"), "y": [1, 2]}),
            Finding("c2", "b", "m", "not reproduced", essential=False),
        ]

    monkeypatch.setattr(
        studies, "find_study", lambda name: Study("made", "A made one", "1234.5678", "small", run, (4, 5))
    )
    return asked


def test_a_run_is_plain_data_with_the_verdict_of_its_essential_findings(made):
    result = run_study("made", arguments=["study", "made"])
    assert made == [((4, 5), False, Steps)]
    assert (result["schema"], result["id"], result["verdict"]) == (SCHEMA, "made", "direction only")
    assert (result["full"], result["shrunk"], result["seeds"]) == (False, "small", [4, 5])
    assert result["record"]["command"] == "optrode study made" and result["record"]["seed"] == 4
    assert [finding["claim"] for finding in result["findings"]] == ["c", "c2"]


def test_a_full_run_was_shrunk_in_nothing(made):
    assert run_study("made", full=True)["shrunk"] == "" and made[0][1] is True


def test_a_result_is_saved_whole_under_its_id(made, tmp_path):
    path = save_study(run_study("made"), tmp_path / "results")
    assert path.name == "made.json" and [file.name for file in path.parent.iterdir()] == ["made.json"]
    back = json.loads(path.read_text(encoding="utf-8"))
    assert back["verdict"] == "direction only" and back["findings"][0]["numbers"]["y"] == [1, 2]


def test_a_result_that_cannot_be_written_leaves_nothing(made, tmp_path):
    result = run_study("made")
    result["findings"] = {1, 2}
    with pytest.raises(TypeError):
        save_study(result, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_study_is_named_with_the_nearest():
    with pytest.raises(UnknownName, match="did you mean actadd"):
        find_study("act-add")


@pytest.mark.parametrize("name", study_ids())
def test_every_study_says_what_it_is_and_what_it_shrank(name):
    study = find_study(name)
    assert study.id == name and study.title and study.paper and study.shrunk
    assert callable(study.run) and study.seeds


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_a_committed_result_is_one_of_a_study_and_its_verdict_follows(path):
    result = json.loads(path.read_text(encoding="utf-8"))
    assert result["schema"] == SCHEMA and result["id"] == path.stem and result["id"] in study_ids()
    findings = [Finding(**finding) for finding in result["findings"]]
    assert result["verdict"] == overall(findings) and result["verdict"] in VERDICTS
    assert any(finding.essential for finding in findings)
    assert not result["full"] and result["shrunk"] == find_study(path.stem).shrunk
    assert result["record"]["versions"]["torch"] and result["record"]["seconds"] > 0
