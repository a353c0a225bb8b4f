from __future__ import annotations

import io
import re

import pytest
from fake import fake_result
from hostile import emptied, everywhere
from rich.console import Console

from optrode.errors import BadInput
from optrode.report.terminal import print_comparison


def printed(result: dict, width: int = 100, colour: bool = False) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=colour, color_system="standard" if colour else None)
    print_comparison(result, console)
    return stream.getvalue()


@pytest.mark.parametrize("width", [54, 60, 72, 80, 92, 100, 116, 140])
def test_fits_and_cuts_no_number(width: int) -> None:
    output = printed(fake_result(), width)
    assert max(len(line.rstrip()) for line in output.splitlines()) <= width
    assert "…" not in output
    best = next(line for line in output.splitlines() if line.startswith("mean"))
    assert "0.52" in best and "1.77" in best and "1.17" in best and "0.080" in best
    assert ("[0.44, 0.60]" in best) == (width >= 72) and ("[1.56, 1.98]" in best) == (width >= 116)


def test_verdict_stands_above_the_table_and_completions_below() -> None:
    output = printed(fake_result())
    places = [
        output.index(part) for part in ("One sentence of", "Quick run", "log-odds", "angular", "unsteered: it was")
    ]
    assert places == sorted(places)
    assert "* over the perplexity budget of 1.2" in output and "1.21*" in output
    assert "no better than a random direction: angular steering" in output


def test_kinds_look_different() -> None:
    lines = printed(fake_result(), colour=True).splitlines()
    baseline = next(line for line in lines if "few-shot" in line)
    control = next(line for line in lines if "random direction (20)" in line)
    method = next(line for line in lines if "LDA direction" in line)
    assert "\x1b[3m" in baseline and "\x1b[2m" in control
    assert "\x1b[3m" not in method and "\x1b[2m" not in method


def test_foreign_text_cannot_repaint_the_terminal() -> None:
    output = printed(everywhere(fake_result()))
    assert "\x1b" not in output and "\u202e" not in output
    assert "[red]" in re.sub(r"\s", "", output)


def test_every_value_null_and_every_list_empty() -> None:
    output = printed(emptied(fake_result()))
    assert "n.m." in output and "n.m. not measured" in output and not re.search(r"\b(None|nan)\b", output)
    assert "No method was measured." in printed({"schema": "optrode.comparison/1", "rows": []})


def test_refuses_what_is_no_comparison() -> None:
    with pytest.raises(BadInput, match="schema"):
        print_comparison({"rows": []}, Console(file=io.StringIO()))
