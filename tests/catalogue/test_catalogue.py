"""The catalogue is what the repository holds, no more and no less, and the search finds what a user means."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import optrode as op
from optrode.catalogue import build
from optrode.catalogue.rows import INDEX
from optrode.catalogue.search import EMBEDDINGS, fingerprint, search
from optrode.cli import run
from optrode.errors import BadInput, UnknownName

ROOT = Path(op.__file__).parents[1]
DATA = ROOT / "optrode" / "catalogue"
SHARED = ROOT.parent / "shared"


def test_the_index_is_not_stale() -> None:
    text = build.text(build.build(ROOT))
    assert (DATA / INDEX).read_text(encoding="utf-8") == text, "run: python tools/catalogue.py"


@pytest.mark.skipif(not (SHARED / "rows.tsv").exists(), reason="the shared folder is not here")
@pytest.mark.parametrize("name", ["catalogue/rows.tsv", "functions/functions.tsv"])
def test_the_copies_are_the_shared_tables(name: str) -> None:
    own, shared = ROOT / "optrode" / name, SHARED / Path(name).name
    assert own.read_bytes() == shared.read_bytes(), "run: python tools/catalogue.py SHARED"


def test_the_embeddings_belong_to_these_texts() -> None:
    from safetensors.numpy import load

    stored = load((DATA / EMBEDDINGS).read_bytes())
    assert list(stored) == [fingerprint(tuple(op.systems()))], "run: python tools/catalogue.py --embed"
    assert stored[next(iter(stored))].shape == (len(op.systems()), 384)


def test_every_row_has_what_a_user_reads() -> None:
    systems = op.systems()
    assert len(systems) == 198 == len({system.id for system in systems})
    for system in systems:
        assert system.title and len(system.job) > 20
        assert (system.status == "works") == (not system.missing)
        assert (system.status == "works") <= bool(system.entry_points and system.verdict)


def test_a_row_without_a_parity_test_does_not_work(tmp_path: Path) -> None:
    """The status follows the files: without its tests, nothing works."""
    for part in ("optrode", "studies"):
        (tmp_path / part).symlink_to(ROOT / part)
    (tmp_path / "tests").mkdir()
    rows = {row["id"]: row for row in build.build(tmp_path)["systems"]}
    assert rows["caa"]["status"] == "partial" and rows["caa"]["missing"] == ["parity test"]
    assert not [row for row in rows.values() if row["status"] == "works"]


def test_a_mark_for_no_row_is_refused(tmp_path: Path) -> None:
    for part in ("optrode", "studies"):
        (tmp_path / part).symlink_to(ROOT / part)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_x.py").write_text("@pytest.mark.parity('caaa')\ndef test_x(): ...\n")
    with pytest.raises(op.errors.BadFile, match="'caaa'"):
        build.build(tmp_path)


def test_entry_points_are_there() -> None:
    import importlib

    for system in op.systems(status="works"):
        for name in system.entry_points:
            module, _, attribute = name.rpartition(".")
            assert getattr(importlib.import_module(module), attribute).id == system.id


def test_listing_imports_no_method() -> None:
    code = (
        "import sys, optrode as op; op.systems(); "
        "print([name for name in sys.modules if name in ('torch', 'pandas', 'optrode.steering')])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("steer with a pair of short prompts", "actadd"),
        ("huge outlier values in hidden states", "massive-activations"),
        ("merge a keyword ranking with embeddings", "fusion-functions"),
        ("delete experts of a mixture-of-experts model", "reap"),
    ],
)
def test_a_search_finds_what_is_meant(query: str, wanted: str) -> None:
    found = search(query)
    assert wanted in [system.id for system in list(found)[:3]]
    assert sorted(found.scores, reverse=True) == list(found.scores)
    assert len(found) == 198


def test_without_the_encoder_words_are_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(queries: object) -> None:
        raise op.errors.MissingFile("no network")

    monkeypatch.setattr("optrode.catalogue.search.semantic_scores", missing)
    with pytest.warns(UserWarning, match="words alone"):
        found = search("induction heads")
    assert next(iter(found)).id == "induction-heads"


def test_wrong_names_are_one_line() -> None:
    with pytest.raises(UnknownName, match="steering"):
        op.systems(family="stering")
    with pytest.raises(UnknownName, match="works"):
        op.systems(status="work")
    with pytest.raises(UnknownName, match="caa"):
        op.systems()["ca"]
    with pytest.raises(BadInput, match="no word"):
        op.systems("???")


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["systems", "--family", "massive", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["family"] for row in rows} == {"massive"} and "massive-activations" in [row["id"] for row in rows]
    assert run(["systems", "caa"]) == 0
    assert "optrode.steering.CAA" in capsys.readouterr().out
