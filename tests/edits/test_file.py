from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

import optrode as op
from optrode import edits
from optrode.edits import Operator, PrefixEdit, Provenance, SiteEdit, Sum
from optrode.edits.conditions import Measure
from optrode.edits.file import FORMAT, recipe_hash
from optrode.errors import BadFile, BadInput, MissingFile, NotSupported, OptrodeError

V, M = torch.tensor([1.0, -2.5, 3e-8]), torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
RECIPE = {"method": "CAA", "pairs": 12, "layers": [1, 2], "options": {"normalise": True, "rate": 0.1}}
KNOWN = Provenance(
    fingerprint={"config": "a", "tokenizer": "b", "weights": "c"}, recipe=RECIPE,
    equations={"layers.1.out": "mid + mlp.out"}, stream_norm={"layers.1.out": 12.5}, start_token="chat: <|im_start|>",
)  # fmt: skip
S = "layers.1.out"
EDITS = {
    "add": edits.add(S, V, "last_prompt", features=(0, 2, -1)),
    "add half": edits.add(S, V.to(torch.bfloat16)),
    "add double": edits.add(S, V.double() / 3),
    "by position": edits.add_by_position(S, M, "first:2@user"),
    "scale": edits.scale(S, 2.0) * 0.1,
    "project out": edits.project_out("layers.*.{in,out}", M, "span:two\nlines \u00e9"),
    "affine": edits.affine(S, V, -V),
    "affine within": edits.affine_within(S, V, -V, -torch.inf, V.abs()),
    "reach": edits.reach(S, V, 0.5, 0.9, "newest", side="at_most"),
    "condition": edits.when(edits.condition(S, V, threshold=0.5, fires="<="), edits.add(S, V) * 2),
    "low rank": edits.low_rank(S, M, -M, torch.tensor([0.5, 2.0]), "generated"),
    "subspace": edits.subspace(S, M, bias=torch.tensor([0.5, 2.0])) * 0.3,
    "gated": edits.gated(S, V, -V, 0.25, features=(0, 2, -1)),
    "replace": edits.replace("layers.1.attn.heads", M, heads=(0, 3)),
    "zero": edits.zero_ablate("module:model.layers.1:in"),
    "mean": edits.mean_ablate(S, V),
    "clamp": edits.clamp(S, low=-1.0),
    "knockout": edits.knockout("layers.1.attn.scores", "user", "last_prompt", heads=(2,)),
    "keys": edits.scale("layers.1.attn.pattern", 0.5, keys="first:1"),
    "stream unit": replace(edits.add(S, V) * -7, unit="stream", provenance=KNOWN),
    "sum": edits.add(S, V) + edits.scale("layers.2.out", V) * 3 + edits.add(S, V, "generated:3-"),
    "chain": ((edits.add(S, V) >> edits.zero_ablate(S)) * 0.5).with_provenance(KNOWN),
    "nested": (edits.add(S, V) >> (edits.add(S, -V) + edits.clamp(S, high=2.0))) + edits.add(S, 2 * V),
    "zero strength": edits.add(S, V) * 0,
    "prompt": edits.prompt("Be brief."),
    "turns": PrefixEdit("", (("user", "2+2"), ("assistant", "4")), KNOWN),
}
assert {leaf.operator.name for edit in EDITS.values() if hasattr(edit, "leaves") for leaf in edit.leaves()} == set(
    edits.operators.SAVEABLE
), "every operator that can be saved is tried here"


def same(first, second) -> bool:
    """Equal in every field, tensors bit for bit and of one dtype."""
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and first.shape == second.shape and torch.equal(first, second)
    if isinstance(first, (edits.Edit, Operator, edits.Conditions, Measure)):
        return type(first) is type(second) and all(same(v, vars(second)[k]) for k, v in vars(first).items())
    if isinstance(first, tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return type(first) is type(second) and first == second


@pytest.mark.parametrize("name", EDITS)
def test_what_is_saved_comes_back_bit_equal(name: str, tmp_path: Path):
    path = EDITS[name].save(tmp_path / "new folder" / "one.edit")
    loaded = op.load_edit(path)
    assert same(EDITS[name], loaded)
    assert [entry.name for entry in path.parent.iterdir()] == ["one.edit"]
    again = loaded.save(tmp_path / "two.edit")
    assert again.read_bytes() == path.read_bytes()


def test_the_comparison_above_can_fail():
    assert not same(edits.add(S, V), edits.add(S, V.double()))
    assert not same(edits.add(S, V), edits.add(S, V + 1e-7))
    assert not same(EDITS["sum"], EDITS["chain"]) and not same(EDITS["add"], EDITS["add"] * 2)


def metadata(path: Path) -> dict:
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["optrode"])


def rewritten(path: Path, change) -> Path:
    """The same file with its description changed by `change(description)`."""
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
    described = metadata(path)
    described = change(described) or described
    save_file(tensors, path, metadata={"optrode": described if isinstance(described, str) else json.dumps(described)})
    return path


def test_the_file_says_what_is_needed_to_use_it_rightly(tmp_path: Path):
    described = metadata(EDITS["stream unit"].save(tmp_path / "a.edit"))
    assert described["format"] == FORMAT and described["version"] == op.__version__ and described["kind"] == "site"
    node = described["edit"]
    assert node["strength"] == -7 and node["unit"] == "stream" and node["positions"] == "all" and node["site"] == S
    assert node["recipe_hash"] == recipe_hash(RECIPE) and node["provenance"]["start_token"] == "chat: <|im_start|>"


def test_a_file_is_replaced_whole(tmp_path: Path):
    path = EDITS["add"].save(tmp_path / "a.edit")
    EDITS["sum"].save(path)
    assert same(op.load_edit(path), EDITS["sum"]) and len(list(tmp_path.iterdir())) == 1


def test_nothing_is_written_when_an_edit_cannot_be_saved(tmp_path: Path):
    code = edits.function(S, torch.tanh)
    path = EDITS["add"].save(tmp_path / "a.edit")
    before = path.read_bytes()
    for edit in (code, EDITS["add"] + code, EDITS["add"] >> (EDITS["sum"] + code * 2)):
        for target in (path, tmp_path / "new.edit", tmp_path / "folder" / "new.edit"):
            with pytest.raises(NotSupported, match="code"):
                edit.save(target)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.edit"] and path.read_bytes() == before


def test_a_write_that_breaks_off_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = EDITS["add"].save(tmp_path / "a.edit")
    before = path.read_bytes()

    def breaks(tensors, target, metadata):
        Path(target).write_bytes(b"half")
        raise OSError("the disk is full")

    monkeypatch.setattr("safetensors.torch.save_file", breaks)
    with pytest.raises(OSError, match="full"):
        EDITS["sum"].save(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.edit"] and path.read_bytes() == before


def test_a_folder_is_not_overwritten(tmp_path: Path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    with pytest.raises(BadInput, match="folder"):
        EDITS["add"].save(tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years of work"
    with pytest.raises(MissingFile):
        op.load_edit(tmp_path / "thesis")


def test_missing_and_foreign_files(tmp_path: Path):
    with pytest.raises(MissingFile, match=r"no edit file '.*nowhere\.edit'"):
        op.load_edit(tmp_path / "nowhere.edit")
    save_file({"weight": V}, tmp_path / "weights.safetensors")
    save_file({"weight": V}, tmp_path / "other.safetensors", metadata={"format": "pt"})
    for name in ("weights", "other"):
        with pytest.raises(BadFile, match="no edit"):
            op.load_edit(tmp_path / f"{name}.safetensors")
    torch.save({"vector": V}, tmp_path / "pickle.edit")
    (tmp_path / "text.edit").write_text("{}")
    (tmp_path / "empty.edit").write_bytes(b"")
    for name in ("pickle", "text", "empty"):
        with pytest.raises(BadFile, match="no safetensors file or is damaged"):
            op.load_edit(tmp_path / f"{name}.edit")


@pytest.mark.parametrize("later", ["optrode.edit/2", "optrode.edit/1.1", None, 7, "", "a\nb"])
def test_another_format_is_refused(later, tmp_path: Path):
    path = rewritten(EDITS["add"].save(tmp_path / "a.edit"), lambda described: described | {"format": later})
    with pytest.raises(BadFile, match="update optrode") as refused:
        op.load_edit(path)
    assert len(str(refused.value).splitlines()) == 1


def at_leaf(**changes):
    return lambda described: described | {"edit": described["edit"] | changes}


@pytest.mark.parametrize(
    "change",
    [
        at_leaf(operator="exec"), at_leaf(operator="function"), at_leaf(operator=None), at_leaf(operator=["add"]),
        at_leaf(node="policy"), at_leaf(node=["site"]), at_leaf(gate="when sunny"), at_leaf(settings={"scale": 2}),
        at_leaf(settings={"vector": 1}), at_leaf(tensors="elsewhere"), at_leaf(tensors=None), at_leaf(strength="2"),
        at_leaf(strength=True), at_leaf(strength=float("nan")), at_leaf(strength=float("inf")), at_leaf(site=3),
        at_leaf(positions="the end"), at_leaf(positions=3), at_leaf(unit="furlongs"), at_leaf(features=[1.5]),
        at_leaf(features=[float("inf")]), at_leaf(features="12"), at_leaf(heads=[True]), at_leaf(heads={"0": 1}),
        at_leaf(provenance=None), at_leaf(provenance={"author": "x"}), at_leaf(provenance={"fingerprint": "x"}),
        at_leaf(provenance={"recipe": [1]}), at_leaf(provenance={"start_token": 1}), at_leaf(recipe_hash="x"),
        lambda described: described | {"edit": []}, lambda described: described | {"edit": None},
        lambda described: {key: value for key, value in described.items() if key != "edit"},
        lambda described: described | {"edit": {"node": "sum", "parts": [{"node": "prefix", "system": "x", "turns": [],
                                                                           "provenance": {}}]}},
        lambda described: described | {"edit": {"node": "sum", "parts": 3}},
        lambda described: described | {"edit": {"node": "prefix", "system": "", "turns": [], "provenance": {}}},
        lambda described: "[1]", lambda described: "no json", lambda described: "[" * 10**5,
        lambda described: '{"format": ' + "9" * 5000 + "}", lambda described: "\x00",
    ],
)  # fmt: skip
def test_what_is_unknown_is_refused_in_one_line(change, tmp_path: Path):
    path = rewritten(EDITS["add"].save(tmp_path / "a.edit"), change)
    with pytest.raises(BadFile, match=r"a\.edit") as refused:
        op.load_edit(path)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("key", ["method", "pairs", "options"])
def test_a_recipe_that_was_changed_afterwards_is_noticed(key: str, tmp_path: Path):
    def forge(described: dict) -> None:
        described["edit"]["provenance"]["recipe"][key] = "other"

    path = EDITS["stream unit"].save(tmp_path / "a.edit")
    op.load_edit(path)
    with pytest.raises(BadFile, match="does not match its hash"):
        op.load_edit(rewritten(path, forge))

    def forget(described: dict) -> None:
        described["edit"]["recipe_hash"] = None

    with pytest.raises(BadFile, match="does not match its hash"):
        op.load_edit(rewritten(EDITS["stream unit"].save(path), forget))


def test_recipes_of_plain_python_survive_the_trip(tmp_path: Path):
    recipe = {10: "ten", 9: ("a", "b"), "path": Path("x"), "dtype": torch.float16, "none": None}
    edit = edits.add(S, V).with_provenance(Provenance(recipe=recipe))
    loaded = op.load_edit(edit.save(tmp_path / "a.edit"))
    assert loaded.provenance.recipe["9"] == ["a", "b"]
    assert recipe_hash(loaded.provenance.recipe) == recipe_hash(recipe)
    assert recipe_hash({"a": 1, "b": 2}) == recipe_hash({"b": 2, "a": 1}) != recipe_hash({"a": 2, "b": 1})


def test_numbers_that_are_none_are_damage(tmp_path: Path):
    path = EDITS["add"].save(tmp_path / "a.edit")
    with safe_open(path, framework="pt") as file:
        described = file.metadata()
    save_file({"edit.vector": torch.tensor([1.0, float("nan"), 2.0])}, path, metadata=described)
    with pytest.raises(BadFile, match="NaN"):
        op.load_edit(path)


SAVED = ("stream unit", "nested", "turns", "by position")


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("saved")
    return [EDITS[name].save(folder / f"{number}.edit").read_bytes() for number, name in enumerate(SAVED)]


def loads_or_is_refused(data: bytes, folder: Path) -> None:
    path = folder / "damaged.edit"
    path.write_bytes(data)
    try:
        assert isinstance(op.load_edit(path), edits.Edit)
    except BadFile as refused:
        assert len(str(refused).splitlines()) == 1


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), which=st.integers(0, len(SAVED) - 1))
def test_flipped_bytes_never_do_worse_than_a_refusal(data, which: int, originals: list[bytes], tmp_path: Path):
    damaged = bytearray(originals[which])
    for place in data.draw(st.lists(st.integers(0, len(damaged) - 1), min_size=1, max_size=6)):
        damaged[place] = data.draw(st.integers(0, 255))
    loads_or_is_refused(bytes(damaged), tmp_path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), which=st.integers(0, len(SAVED) - 1))
def test_truncated_and_lengthened_files(data, which: int, originals: list[bytes], tmp_path: Path):
    whole = originals[which]
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, len(whole)))
    loads_or_is_refused(whole[:start] + data.draw(st.binary(max_size=20)) + whole[stop:], tmp_path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    ),
    key=st.sampled_from(
        ["node", "site", "operator", "tensors", "settings", "positions", "strength", "unit", "features", "heads",
         "provenance", "recipe_hash", "parts", "system", "turns", "keys"]
    ),
)  # fmt: skip
def test_any_value_in_any_entry(value, key: str, tmp_path: Path):
    for name in ("stream unit", "chain", "turns"):
        path = rewritten(EDITS[name].save(tmp_path / "a.edit"), at_leaf(**{key: value}))
        try:
            op.load_edit(path)
        except BadFile as refused:
            assert len(str(refused).splitlines()) == 1


def test_a_file_cannot_name_a_class_or_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Whatever a description names, only the table of known operators is looked up."""
    ran = []
    monkeypatch.setattr(edits.Function, "__call__", lambda *args: ran.append(args))
    for name in ("function", "builtins.eval", "__class__", "os.system", "Operator", "Add"):
        path = rewritten(EDITS["add"].save(tmp_path / "a.edit"), at_leaf(operator=name, settings={}))
        with pytest.raises(OptrodeError):
            op.load_edit(path)
    assert ran == []
    assert isinstance(op.load_edit(EDITS["sum"].save(tmp_path / "b.edit")), Sum)
    assert isinstance(op.load_edit(EDITS["add"].save(tmp_path / "b.edit")), SiteEdit)
