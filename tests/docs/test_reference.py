"""Pages that a tool writes say what it would write today; figures agree with the tests that assert them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]
EXACTNESS = ROOT / "docs" / "explanation" / "exactness.md"


def test_the_command_line_page_is_current(tool: Any):
    found = tool("cli_reference").reference()
    page = (ROOT / "docs/reference/cli.md").read_text(encoding="utf-8")
    assert found == page, "run: python tools/cli_reference.py"


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    return json.loads((ROOT / "docs/data/tolerances.json").read_text())


def test_the_exactness_page_shows_the_measured_figures(tool: Any, figures: dict[str, Any]):
    page = EXACTNESS.read_text(encoding="utf-8")
    assert tool("tolerances").put(page, figures) == page, "run: python tools/tolerances.py"
    assert {(row["model"], row["dtype"]) for row in figures["rows"]} == {
        (model, dtype) for model in ("tiny GPT-2", "smollm2-135m") for dtype in ("float32", "bfloat16", "float16")
    }


def test_the_constants_that_tests_assert_are_above_the_figures_and_on_the_page(figures: dict[str, Any]):
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("asserted_tolerances", ROOT / "tests/properties/test_04_positions.py")
    assert spec is not None and spec.loader is not None
    asserted: Any = module_from_spec(spec)
    spec.loader.exec_module(asserted)
    for row in figures["rows"]:
        measured = max(row["padded"], row["cached"])
        if row["model"] == "tiny GPT-2" and row["dtype"] != "float16":
            assert measured <= asserted.TOLERANCE[getattr(torch, row["dtype"])], row
        if row["model"] == "smollm2-135m" and row["dtype"] == "float32":
            assert measured <= asserted.SMOLLM2, row
    page = EXACTNESS.read_text(encoding="utf-8")
    tiny = [asserted.TOLERANCE[kind] for kind in (torch.float64, torch.float32, torch.bfloat16)]
    assert f"| tiny networks of three blocks | {' | '.join(map(short, tiny))} |" in page
    assert f"| smollm2-135m | | {short(asserted.SMOLLM2)} | |" in page


def short(value: float) -> str:
    """1e-3 for 0.001."""
    digits, exponent = f"{value:.0e}".split("e")
    return f"{digits}e{int(exponent)}"
