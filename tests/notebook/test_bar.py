"""Progress in a notebook: one line that is drawn over and goes; nothing on standard error or where it is captured."""

from __future__ import annotations

import sys
import time
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from optrode.engine import progress
from optrode.notebook import bar
from optrode.sources.quiet import shown_when_slow


class Screen:
    """What a notebook would show: the last state of each line, and how often it was drawn."""

    def __init__(self) -> None:
        self.lines: list[dict[str, str]] = []
        self.drawn = 0

    def display(self, shown: dict[str, str], raw: bool, display_id: bool) -> Any:
        assert raw and display_id
        place = len(self.lines)
        self.lines.append(shown)
        self.drawn += 1

        def update(shown: dict[str, str], raw: bool) -> None:
            self.lines[place] = shown
            self.drawn += 1

        return SimpleNamespace(update=update)


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    made, shell = Screen(), SimpleNamespace(kernel=object(), display_pub=object())
    shells, displays = ModuleType("IPython.core.getipython"), ModuleType("IPython.display")
    shells.get_ipython = lambda: shell  # type: ignore[attr-defined]
    displays.display = made.display  # type: ignore[attr-defined]
    for module in (ModuleType("IPython"), ModuleType("IPython.core"), shells, displays):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    made.shell = shell  # type: ignore[attr-defined]
    monkeypatch.setattr(progress, "QUIET_SECONDS", -1.0)
    monkeypatch.setattr(bar, "_PACE", 0.0)
    return made


def test_one_line_says_how_far_it_got_and_goes(screen: Screen, capsys: pytest.CaptureFixture[str]):
    seen = []
    for item in progress.track(["a", "b", "c"], "reading <b>"):
        seen.append((item, screen.lines[-1]["text/plain"] if screen.lines else ""))
    assert [text for _, text in seen] == ["reading <b>: 0 of 3", "reading <b>: 1 of 3", "reading <b>: 2 of 3"]
    assert screen.lines == [{"text/plain": "", "text/html": ""}]
    assert capsys.readouterr() == ("", "")


def test_its_html_is_one_line_without_scripts(screen: Screen):
    for _ in progress.track(range(2), "reading <b>"):
        shown = screen.lines[-1]["text/html"]
        assert "reading &lt;b&gt;" in shown and "<progress" in shown and "<script" not in shown
    assert screen.drawn == 4, "begun, twice on its way, and gone"


def test_steps_and_amounts_have_the_same_line(screen: Screen):
    with progress.Steps("a study") as steps:
        steps.at("fitting")
        assert screen.lines[-1]["text/plain"].startswith("a study: fitting")
        assert not list(progress.track([], "inside"))
    with progress.Amount("writing", 10, "rows") as amount:
        amount.add(4)
        assert screen.lines[-1]["text/plain"].startswith("writing: 4 of 10 rows")
    assert screen.lines == [{"text/plain": "", "text/html": ""}] * 2


def test_where_output_is_captured_nothing_is_shown(screen: Screen, capsys: pytest.CaptureFixture[str]):
    screen.shell.display_pub = SimpleNamespace(outputs=[])  # type: ignore[attr-defined]
    assert list(progress.track(range(3), "reading")) == [0, 1, 2]
    with progress.Steps("a study") as steps:
        steps.at("fitting")
    with shown_when_slow("loading", after=0.01):
        time.sleep(0.1)
    assert screen.lines == [] and capsys.readouterr() == ("", "")


def test_slow_loading_is_said_below_the_cell(screen: Screen, capsys: pytest.CaptureFixture[str]):
    with shown_when_slow("loading [it]", after=0.01):
        time.sleep(0.2)
        assert screen.lines[-1]["text/plain"].startswith("loading [it]")
    assert screen.lines == [{"text/plain": "", "text/html": ""}] and capsys.readouterr() == ("", "")


def test_a_display_that_fails_disturbs_nobody(screen: Screen, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys.modules["IPython.display"], "display", lambda *_, **__: 1 / 0, raising=False)
    assert list(progress.track(range(3), "reading")) == [0, 1, 2]


def test_outside_of_a_notebook_there_is_none(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "IPython.core.getipython", raising=False)
    assert bar.notebook() is None and bar.notebook_bar() is None
    terminal = ModuleType("IPython.core.getipython")
    terminal.get_ipython = lambda: SimpleNamespace(display_pub=object())  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, terminal.__name__, terminal)
    assert bar.notebook() is None, "IPython in a terminal has rich's bars"
