"""Pieces of HTML: foreign texts stay texts, views never raise, and pictures are drawn to their scale."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pytest

from optrode.notebook import html, pictures, text
from optrode.notebook.style import STYLE


@pytest.mark.parametrize(
    "made",
    [
        lambda foreign: html.tag("p", foreign, title=foreign),
        lambda foreign: html.card(foreign, foreign, [foreign]),
        lambda foreign: html.facts({foreign: foreign}),
        lambda foreign: html.table([foreign], [[foreign]]),
        lambda foreign: html.fold(foreign, foreign, about=foreign),
        lambda foreign: html.notes([foreign]),
        lambda foreign: html.joined(html.quiet(foreign), html.code(foreign), html.warning(foreign)),
        lambda foreign: pictures.strip([("run", foreign)], foreign),
        lambda foreign: pictures.bars([1.0], [foreign], foreign),
        lambda foreign: pictures.meter(0.3, foreign),
        lambda foreign: pictures.interval(1.0, 0.0, 2.0, (0.0, 2.0), foreign),
        lambda foreign: pictures.heat_map([[1.0]], (foreign, [foreign]), (foreign, [foreign]), 1.0, [[foreign]]),
        lambda foreign: pictures.columns([1.0], [foreign], [foreign], foreign),
        lambda foreign: pictures.legend(1.0, foreign),
    ],
)
def test_foreign_texts_stay_texts(made: Callable[[str], html.Html], hostile: str, read_page: Callable[[str], Any]):
    page = read_page(html.whole(html.tag("div", made(hostile))).replace("<p", "<span").replace("</p>", "</span>"))
    said = page.text + " ".join(value for _, value in page.attributes)
    assert "<script>" in said or "<script" in said, "it is shown, as a text"


def test_what_is_markup_already_is_not_escaped_twice():
    assert html.tag("b", html.tag("i", "a & b"), "<") == "<b><i>a &amp; b</i>&lt;</b>"


def test_a_view_that_fails_shows_the_text_of_the_object(read_page: Callable[[str], Any]):
    class Broken:
        def __repr__(self) -> str:
            return "Broken(<b>)"

    class Worse:
        def __repr__(self) -> str:
            raise RuntimeError

    def view(thing: Any) -> html.Html:
        raise ValueError

    assert read_page(html.safely(view)(Broken())).text == "Broken(<b>)"
    assert read_page(html.safely(view)(Worse())).text == "Worse (it cannot be shown)"


def test_long_tables_are_cut_and_say_so(read_page: Callable[[str], Any]):
    page = read_page(html.whole(html.table(["n"], [[n] for n in range(1234)])))
    assert page.tags["tr"] == html.MOST_LINES + 2 and "and 1,034 more" in page.text


def test_every_rule_of_the_style_holds_within_a_card_alone():
    selectors = [part.strip() for rule in re.findall(r"([^{}]+)\{", STYLE) for part in rule.split(",")]
    assert len(selectors) > 30 and all(selector.startswith("div.optrode.optrode") for selector in selectors)
    assert "http" not in STYLE and "@import" not in STYLE and "url(" not in STYLE


def _heights(drawing: str) -> list[float]:
    return [float(height) for height in re.findall(r'<rect[^>]* height="([\d.]+)"', drawing)]


def test_bars_follow_their_values_and_far_ones_a_logarithm():
    near = _heights(pictures.bars([1.0, 2.0, 4.0], ["", "", ""]))
    assert near == [6.0, 12.0, 24.0]
    far = _heights(pictures.bars([1.0, 100.0, 10_000.0], ["", "", ""]))
    assert far[2] == 24.0 and far[1] - far[0] == pytest.approx(far[2] - far[1], abs=0.02)
    assert len(_heights(pictures.bars([1.0, None, math.nan, 2.0], [""] * 4))) == 2


def test_colours_say_sign_and_size():
    assert pictures.shade(1.0) != pictures.shade(-1.0)
    assert pictures.shade(0.0)[1] < pictures.shade(0.2)[1] < pictures.shade(1.0)[1] == 1.0
    assert pictures.shade(7.0) == pictures.shade(1.0)


def test_cells_of_a_heat_map_say_what_they_are_where_they_are_told():
    few = pictures.heat_map([[1.0] * 3] * 2, ("y", ["0", "1"]), ("x", list("abc")), 1.0, [["told"] * 3] * 2)
    assert few.count("told") == 6
    none = pictures.heat_map([[1.0, math.nan]], ("y", ["0"]), ("x", ["a", "b"]), 1.0)
    assert none.count("<rect") == 2 and "<title" not in none, "a frame and a cell"


def test_texts_are_cut_without_reading_all_of_them():
    assert text.cut("word " * 10**6, 20) == "word word word word…"
    assert text.spans([0, 1, 2, 9]) == "{0-2,9}" and text.several(2, "entry", "entries") == "2 entries"
