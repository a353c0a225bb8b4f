"""Maps: changes and shares, the largest entries, files that give back what was saved, and pictures that show it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import optrode as op
from optrode.errors import BadFile, BadInput, MissingFile

VALUES = np.array([[1.0, 2.0, 3.0], [1.0, -4.0, np.nan]])
LABELS = {"layer": [0, 1], "position": ["0 The", "1 cat|dog", "2 [sat]"]}


@pytest.fixture
def found() -> op.Map:
    return op.Map(VALUES, LABELS, "logit difference", {"way": "columns", "cells": 6}, base=1.0, donor=3.0)


def test_changes_and_shares_of_the_way(found: op.Map):
    assert np.array_equal(found.change().values, VALUES - 1, equal_nan=True)
    assert np.array_equal(found.normalised().values, (VALUES - 1) / 2, equal_nan=True)
    assert (found.change().base, found.change().donor) == (0.0, 2.0)
    assert (found.normalised().base, found.normalised().donor) == (0.0, 1.0)
    assert found.values is VALUES, "raw values are kept"


def test_each_example_has_its_own_way():
    values = np.array([[1.0, 2.0], [10.0, 30.0]])
    base, donor = np.array([[1.0], [10.0]]), np.array([[3.0], [30.0]])
    found = op.Map(values, {"example": [0, 1], "layer": [0, 1]}, base=base, donor=donor)
    assert found.normalised().values.tolist() == [[0.0, 0.5], [0.0, 1.0]]


def test_without_ends_there_is_no_share():
    bare = op.Map(VALUES, LABELS)
    for ask in (bare.change, bare.normalised, op.Map(VALUES, LABELS, base=1.0, donor=1.0).normalised):
        with pytest.raises(BadInput):
            ask()


def test_the_largest_entries_come_first(found: op.Map):
    top = found.top(3)
    assert top["position"].tolist() == ["1 cat|dog", "2 [sat]", "1 cat|dog"] and top["change"].tolist() == [-5, 2, 1]
    assert len(found.top(100)) == 5, "what is no number is no entry"
    bare = op.Map(VALUES, LABELS).top(1)
    assert bare["value"].tolist() == [-4] and "change" not in bare


@pytest.mark.parametrize("ending", [".json", ".npz"])
def test_files_give_back_what_was_saved(ending: str, found: op.Map, tmp_path: Path):
    loaded = op.Map.load(found.save(tmp_path / f"map{ending}"))
    assert np.array_equal(loaded.values, VALUES, equal_nan=True)
    assert (loaded.labels, loaded.unit, loaded.notes) == (LABELS, found.unit, found.notes)
    assert (float(loaded.base), float(loaded.donor)) == (1.0, 3.0)
    bare = op.Map.load(op.Map(VALUES, LABELS).save(tmp_path / f"bare{ending}"))
    assert bare.base is None and bare.donor is None
    assert np.array_equal(bare.to_pandas()["value"], VALUES.reshape(-1), equal_nan=True)


def test_json_is_json(found: op.Map, tmp_path: Path):
    text = found.save(tmp_path / "map.json").read_text()
    assert "NaN" not in text and json.loads(text)["values"][1] == [1.0, -4.0, None]


def test_a_table_and_pictures(found: op.Map, tmp_path: Path):
    import pandas as pd

    table = pd.read_csv(found.save(tmp_path / "map.csv"))
    assert table["change"].tolist()[:2] == [0.0, 1.0] and len(table) == 6
    assert found.save(tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    assert "cat|dog" in found.save(tmp_path / "map.svg").read_text()
    assert "cat|dog" in found.save(tmp_path / "map.html").read_text()


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.json", "{"), ("b.json", "[]"), ("c.json", '{"format": "other"}'), ("d.npz", "PK"), ("e.npz", "")],
)
def test_damaged_files_are_refused(name: str, text: str, tmp_path: Path):
    (tmp_path / name).write_text(text)
    with pytest.raises(BadFile):
        op.Map.load(tmp_path / name)


def test_a_file_that_holds_code_is_refused(tmp_path: Path):
    np.savez(tmp_path / "map.npz", values=np.array([print], dtype=object), about=np.array([1], np.uint8))
    with pytest.raises(BadFile):
        op.Map.load(tmp_path / "map.npz")


def test_values_of_another_shape_are_refused(found: op.Map, tmp_path: Path):
    path = found.save(tmp_path / "map.json")
    about = json.loads(path.read_text()) | {"values": [[1.0]]}
    path.write_text(json.dumps(about))
    with pytest.raises(BadFile, match="shape"):
        op.Map.load(path)


def test_unknown_endings_and_absent_files(found: op.Map, tmp_path: Path):
    with pytest.raises(BadInput, match="no known format"):
        found.save(tmp_path / "map.pkl")
    with pytest.raises(BadInput, match="no known format"):
        op.Map.load(tmp_path / "map.csv")
    with pytest.raises(MissingFile):
        op.Map.load(tmp_path / "map.json")
    assert list(tmp_path.iterdir()) == []


# Pictures -------------------------------------------------------------------------------------------------------------


def test_the_middle_colour_is_no_change(found: op.Map):
    chart = found.plot().to_dict()
    scale = chart["encoding"]["color"]["scale"]
    assert scale["domain"][2] == 0 and scale["domain"][0] == -scale["domain"][-1] == -5
    assert chart["encoding"]["x"]["sort"] == LABELS["position"] and chart["encoding"]["y"]["sort"] == ["1", "0"]
    drawn = [row for rows in chart["datasets"].values() for row in rows] if "datasets" in chart else None
    rows = drawn or chart["data"]["values"]
    assert len(rows) == 5 and {row["shown"] for row in rows} == {0.0, 1.0, 2.0, -5.0}


def test_one_axis_is_a_line_and_three_are_panels():
    line = op.Map(np.array([1.0, 2.0]), {"layer": [0, 1]}, "norm").plot().to_dict()
    assert line["mark"]["type"] == "line" and line["encoding"]["y"]["title"] == "norm"
    three = op.Map(np.ones((2, 3, 4)), {"site": ["a", "b"], "layer": [0, 1, 2], "head": [0, 1, 2, 3]}, base=0.5)
    panels = three.plot().to_dict()
    assert panels["facet"]["sort"] == ["site a", "site b"] and panels["spec"]["mark"]["type"] == "rect"


def test_a_very_long_axis_is_cut_to_its_largest():
    values = np.zeros((2, 500))
    values[1, 321] = 7.0
    chart = op.Map(values, {"layer": [0, 1], "feature": list(range(500))}).plot(wide=20).to_dict()
    rows = chart["data"]["values"]
    assert len(rows) == 40 and {row["feature"] for row in rows} >= {"321"}
    assert "20 of 500 features" in str(chart["title"])


def test_a_map_of_nothing_draws(tmp_path: Path):
    assert (
        op.Map(np.zeros((2, 2)), {"layer": [0, 1], "head": [0, 1]}, base=0.0).save(tmp_path / "map.png").stat().st_size
    )


def test_its_text_is_one_line_without_the_values():
    given = {"layer": list(range(30)), "position": list(range(12))}
    assert repr(op.Map(np.ones((30, 12)), given, "logit difference", base=6.1234567, donor=np.array(-2.0))) == (
        "Map(layer 30 x position 12, logit difference, base 6.123, donor -2)"
    )
    assert str(op.Map(np.ones((1, 2)), {"layer": [0], "head": [0, 1]})) == "Map(layer 1 x head 2)"
