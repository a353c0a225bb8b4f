"""The gallery shows what the catalogue holds."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from optrode.catalogue.rows import all_systems

ROOT = Path(__file__).parents[2]


@pytest.fixture
def gallery(tmp_path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("gallery", ROOT / "tools" / "gallery.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_list_of_systems_is_up_to_date(gallery: Any) -> None:
    assert gallery.index() == (ROOT / "docs" / "systems" / "index.md").read_text(encoding="utf-8"), (
        "run: python tools/gallery.py"
    )


def test_every_row_that_has_something_has_a_page_with_its_verdict() -> None:
    for system in all_systems():
        path = ROOT / "docs" / "systems" / f"{system.id}.md"
        assert path.exists() == (system.status != "planned"), "run: python tools/gallery.py"
        if system.verdict:
            assert f"**{system.verdict.capitalize()}**" in path.read_text(encoding="utf-8")


def test_pitfalls_are_read_from_a_card(gallery: Any) -> None:
    card = "# x\n**Pitfalls**:\n- one\n  goes on\n- two\n**Check**: no\n- three\n"
    assert gallery.pitfalls_of(card) == ["one goes on", "two"]


def test_nothing_in_a_text_is_taken_for_markup(gallery: Any) -> None:
    assert gallery._safe("a_b <c> `d_e`") == r"a\_b &lt;c> `d_e`"
