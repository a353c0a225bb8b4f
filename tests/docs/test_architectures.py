"""The page of architectures is what the tool writes from its figures, and no architecture is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from optrode.layouts import all_layouts

ROOT = Path(__file__).parents[2]


def test_the_page_shows_the_figures_of_every_layout(tool: Any) -> None:
    data = json.loads((ROOT / "docs/data/architectures.json").read_text(encoding="utf-8"))
    rows = data["rows"]
    page = (ROOT / "docs/reference/architectures.md").read_text(encoding="utf-8")
    assert tool("architectures").page(rows, data["towers"]) == page, "run: python tools/architectures.py"
    assert {row["layout"] for row in rows} == {layout.name for layout in all_layouts()}


def test_the_figures_are_below_what_load_accepts() -> None:
    rows = json.loads((ROOT / "docs/data/architectures.json").read_text(encoding="utf-8"))["rows"]
    most = {"float32": 1e-6, "bfloat16": 2e-2, "float16": 2e-3}
    for row in rows:
        found = {key: value for key, value in row["errors"].items() if value is not None}
        assert any(key.startswith("float32") for key in found), row["layout"]
        for key, value in found.items():
            assert value < most[key.split()[0]], (row["layout"], key)
