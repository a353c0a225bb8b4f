"""The notebooks of the documentation: small, without traces of a machine, and what they show comes out again."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def load(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def name(path: Path) -> str:
    return path.stem


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_a_notebook_is_executed_small_and_of_no_machine(path: Path):
    text, cells = path.read_text(encoding="utf-8"), load(path)["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(NOTEBOOKS) == 2 and [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert len(text.encode()) < 500_000
    assert not re.search(r"/(home|root|work|tmp|usr|Users|mnt)/|C:\\\\|site-packages", text)
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not [one for one in outputs if one["output_type"] == "error" or one.get("name") == "stderr"]
    assert sum("text/html" in one.get("data", {}) for one in outputs) >= 5
    assert not any(re.search(r"<script|javascript:", "".join(one["data"]["text/html"]), re.I)
                   for one in outputs if "text/html" in one.get("data", {}))  # fmt: skip


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_a_page_of_the_site_shows_all_of_it(path: Path, tool: Any):
    made = tool("notebook_pages").page(path)
    cells = load(path)["cells"]
    for cell in cells:
        assert "".join(cell["source"]) in made
    assert made.count('<div class="notebook-output">') == sum(len(cell.get("outputs", ())) for cell in cells)
    assert f"({path.name})" in made
    for block in re.findall(r'<div class="notebook-output">.*?(?=\n\n|\Z)', made, re.S):
        assert block.count("<div") == block.count("</div>"), "a blank line would end a block of HTML"


def test_pages_are_made_for_the_site(tool: Any, tmp_path: Path):
    pytest.importorskip("mkdocs")
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

    config = MkDocsConfig()
    config.load_dict({"site_name": "x", "docs_dir": str(FOLDER.parent), "site_dir": str(tmp_path)})
    config.validate()
    config.plugins._current_plugin = None
    files = tool("notebook_pages").on_files(Files([]), config)
    assert sorted(file.src_uri for file in files) == [f"notebooks/{path.stem}.md" for path in NOTEBOOKS]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_outputs_come_out_again(path: Path, tool: Any):
    """Every cell runs, says nothing on standard error, and prints the same numbers within a few per cent.

    Times, and the bytes of a forward, are those of a machine: plans are left out.
    """
    pytest.importorskip("nbclient")
    notebooks = tool("notebooks")
    again = notebooks.cleaned(notebooks.executed(path))
    before = load(path)
    cells = [cell for cell in before["cells"] if cell["cell_type"] == "code"]
    for cell, old, new in zip(cells, notebooks.numbers(before), notebooks.numbers(again), strict=True):
        source = "".join(cell["source"])
        if "plan" not in source:
            assert len(old) == len(new), source
            assert new == pytest.approx(old, rel=0.05, abs=0.05), source
    outputs = [output for cell in again["cells"] for output in cell.get("outputs", ())]
    assert not [one for one in outputs if one.get("name") == "stderr"]


@pytest.mark.slow
def test_in_a_real_kernel_progress_is_one_line_that_goes(tool: Any, tmp_path: Path):
    pytest.importorskip("nbclient")
    sources = [
        "import time, optrode.engine.progress as progress\nprogress.QUIET_SECONDS = 0.1",
        "for _ in progress.track(range(8), 'reading'):\n    time.sleep(0.1)",
        "%%capture\nfor _ in progress.track(range(8), 'reading'):\n    time.sleep(0.1)",
        "from optrode.sources.quiet import shown_when_slow\nwith shown_when_slow('loading', 0.1):\n    time.sleep(0.5)",
        "import optrode as op, torch\nmodel = op.load(torch.nn.Sequential(torch.nn.Linear(2, 2)))\nprint(model.sites)",
    ]
    cells = [
        {"cell_type": "code", "id": f"c{n}", "metadata": {}, "source": source, "outputs": [], "execution_count": None}
        for n, source in enumerate(sources)
    ]
    path = tmp_path / "made.ipynb"
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    notebooks = tool("notebooks")
    done = notebooks.executed(path)
    lines = [[one.get("data") for one in cell["outputs"]] for cell in done["cells"]]
    gone = [{"text/plain": "", "text/html": ""}]
    assert lines[:4] == [[], gone, [], gone]
    [printed] = done["cells"][4]["outputs"]
    assert "module:0" in printed["text"] and "\x1b" not in printed["text"]
    assert all(not notebooks.shown(cell) for cell in done["cells"][:4])
