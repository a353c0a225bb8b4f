"""What differs between two edits: exactly that, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import optrode as op
from optrode import edits
from optrode.edits import Provenance
from optrode.edits.policy import Backtrack

S = "layers.1.out"
V = torch.arange(1.0, 9.0)
ADD = edits.add(S, V, "last_prompt")
KINDS: dict[str, Any] = {
    "add": ADD,
    "sum": ADD + edits.scale("layers.2.out", 2.0),
    "chain": (ADD >> edits.zero_ablate(S)) * 0.5,
    "rows": edits.by_row([ADD, None, ADD * 2]),
    "prompt": edits.prompt("Be brief.", (("user", "a"),)),
    "adapter": edits.weights({"a.b": (torch.ones(8, 2), torch.ones(2, 16)), "c": torch.ones(3)}),
    "policy": edits.backtrack(S, V, edit=ADD),
}


def whats(first: Any, second: Any) -> list[str]:
    return [one.what for one in first.diff(second).differences]


@pytest.mark.parametrize("name", KINDS)
def test_an_edit_does_not_differ_from_itself_nor_from_its_file(name: str, tmp_path: Path):
    edit = KINDS[name]
    again = op.load_edit(edit.save(tmp_path / "x.edit"))
    for found in (edit.diff(edit), edit.diff(again), again.diff(edit)):
        assert len(found) == 0 and not found and str(found) == "no difference" and found.alike


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("other", KINDS)
def test_any_two_can_be_compared_both_ways(name: str, other: str):
    there, back = KINDS[name].diff(KINDS[other]), KINDS[other].diff(KINDS[name])
    assert len(there) == len(back) and (len(there) == 0) == (name == other)
    assert {(one.what, one.first, one.second) for one in there.differences} == {
        (one.what, one.second, one.first) for one in back.differences
    }
    assert str(there) and there.as_dict()["differences"] == [vars(one) for one in there.differences]


def test_one_change_is_one_difference():
    assert whats(ADD, ADD * 2) == ["strength"]
    assert whats(ADD, edits.add("layers.2.out", V, "last_prompt")) == ["at"]
    assert whats(ADD, edits.add(S, V, "user")) == ["tokens"]
    assert whats(ADD, edits.scale(S, V, "last_prompt"))[0] == "does"
    assert whats(ADD, replace(ADD, unit="stream")) == ["unit"]
    assert whats(ADD, replace(ADD, heads=(1,))) == ["heads"]
    assert whats(KINDS["prompt"], edits.prompt("Be long.", (("user", "a"),))) == ["system"]
    assert whats(KINDS["policy"], edits.backtrack(S, V, tries=2, edit=ADD)) == ["tries"]
    assert whats(KINDS["policy"], edits.backtrack(S, V, edit=ADD * 3)) == ["strength"]
    assert whats(KINDS["adapter"], KINDS["adapter"] * 2) == ["strength", "strength"]


def test_tensors_are_compared_by_angle_and_largest_difference():
    turned = V.clone()
    turned[0] = -3.0
    (found,) = ADD.diff(edits.add(S, turned, "last_prompt")).differences
    cosine = float(torch.nn.functional.cosine_similarity(V, turned, dim=0))
    assert found.what == "vector" and found.apart == f"cosine {cosine:.4f}, largest difference 4"
    (longer,) = ADD.diff(edits.add(S, 2 * V, "last_prompt")).differences
    assert longer.apart == "cosine 1.0000, largest difference 8"
    (shape,) = ADD.diff(edits.add(S, V[:4], "last_prompt")).differences
    assert shape.apart == "" and "[8]" in shape.first and "[4]" in shape.second
    (kind,) = ADD.diff(edits.add(S, V.half(), "last_prompt")).differences
    assert "float16" in kind.second and kind.apart == "cosine 1.0000, largest difference 0"
    (zero,) = ADD.diff(edits.add(S, 0 * V, "last_prompt")).differences
    assert zero.apart == "cosine undefined, largest difference 8"
    clamps = edits.clamp(S, low=-1.0), edits.clamp(S, low=-1.0, high=2.0)
    (bound,) = clamps[0].diff(clamps[1]).differences
    assert bound.what == "high"


def test_parts_find_each_other():
    far = edits.scale("layers.2.out", 2.0)
    found = (ADD + far).diff(far + ADD * 2)
    assert [(one.of, one.what) for one in found.differences] == [(f"add at {S}", "strength")]
    assert found.alike == ("scale at layers.2.out",)
    (more,) = [one for one in ADD.diff(ADD + far).differences if one.what == "is there"]
    assert (more.of, more.first, more.second) == ("scale at layers.2.out", "no", "yes")
    assert "parts" in whats(ADD + far, ADD >> far) and len((ADD + far).diff(ADD >> far)) == 1
    rows = edits.by_row([ADD, ADD * 2]).diff(edits.by_row([ADD, ADD * 3]))
    assert [(one.of, one.first, one.second) for one in rows.differences] == [(f"add at {S} (row 1)", "2", "3")]


def test_where_they_come_from():
    first = Provenance({"name": "a", "weights": "x"}, {"method": "caa", "pairs": 4}, {}, {S: 10.0}, "raw: none")
    second = Provenance({"name": "b", "weights": "x"}, {"method": "caa", "pairs": 8}, {}, {S: 12.0}, "chat: <s>")
    found = ADD.with_provenance(first).diff(ADD.with_provenance(second))
    assert {one.what: (one.first, one.second) for one in found.differences} == {
        "model: name": ("a", "b"), "fitted: pairs": ("4", "8"), f"stream norm at {S}": ("10", "12"),
        "prompts begin": ("raw: none", "chat: <s>"),
    }  # fmt: skip


def test_names_stand_in_the_text():
    text = str(edits.diff(ADD, ADD * 2, ("monday.edit", "tuesday.edit")))
    assert text.splitlines()[-1].split() == ["strength", "monday.edit:", "1,", "tuesday.edit:", "2"]


def test_a_policy_of_your_own_can_be_compared():
    class Mine(Backtrack):
        name = "mine"

    found = KINDS["policy"].diff(Mine(S, V, edit=ADD))
    assert [(one.what, one.first, one.second) for one in found.differences] == [("does", "backtrack", "mine")]
