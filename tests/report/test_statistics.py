"""The page and the tables of statistics: what they say, that foreign texts stay texts, that nothing is half there."""

from __future__ import annotations

import copy
import html
import importlib
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hostile import PAYLOAD, everywhere
from rich.console import Console
from test_charts import rendered, values_of
from test_report import Page, policy_of

from optrode.errors import BadInput
from optrode.report import read_report
from optrode.report.charts import statistics as charts
from optrode.report.statistics import print_statistics, render, shown, view, write_statistics

DRAWN = {
    "norms": charts.site_norms, "magnitudes": charts.site_magnitudes, "outliers": charts.outlier_channels,
    "sinks": charts.sink_counts, "silent": charts.silent_shares,
}  # fmt: skip
LAYERS = range(6)


def place(layer: int, position: int = 0, text: str = " Al") -> dict[str, Any]:
    site = f"layers.{layer}.out"
    return {"site": site, "layer": layer, "document": 3, "example": 3, "position": position, "token": 7, "text": text}


def line(layer: int) -> dict[str, Any]:
    massive = layer >= 3
    return {
        "site": f"layers.{layer}.out", "kind": "layers.*.out", "layer": layer, "rows": 665, "skipped": 0, "units": 64,
        "norm_mean": 70.0, "norm_p05": 40.0 + layer, "norm_median": 60.0 + layer, "norm_p95": 90.0, "norm_max":
        25_000.0 if massive else 95.0, "sinks": 16 if massive else 0, "magnitude_median": 1.5, "magnitude_p95": 6.0,
        "magnitude_p99": 12.0, "massive_from": 1500.0,
        "largest": {"value": 24_900.0 if massive else -31.0, "unit": "507", **place(layer)},
        "outlier_units": 2, "silent_units": 4 if layer == 5 else 0,
    }  # fmt: skip


def fake_summary() -> dict[str, Any]:
    """What `optrode.stats.summary.summary` gives of a network with a massive channel, the same on every call."""
    ratios = [{"layer": layer, "site": f"layers.{layer}.out", "ratio": 8.0 + 40 * layer} for layer in LAYERS]
    massive = {**place(3), "median": 1.5, "unit": "507", "value": -25_497.0, "kind": "layers.*.out"}
    sink = {**place(3), "norm": 25_678.0, "ratio": 185.2, "kind": "layers.*.out"}
    outlier = {"kind": "layers.*.out", "site": "layers.0.out", "ratio": 208.0, "sites": 6, "layers": "0–5"}
    return {
        "schema": "optrode.statistics-summary/1",
        "info": {
            "model": "smollm2-135m", "weights": {"config": "a", "tokenizer": "b", "weights": "c"}, "data": ["d.txt"],
            "unit": "token", "positions": None, "mask": "all",
        },
        "rows": 665, "skipped": 0, "sites": [line(layer) for layer in LAYERS],
        "massive": [{**massive, "sites": 3, "layers": "3–5"}],
        "sinks": [{**sink, "position": n, "sites": 4, "layers": "0, 3–5"} for n in range(15)],
        "outliers": [
            {**outlier, "unit": str(unit), "ratios": ratios, "largest": {**place(4), "value": -910.0, "unit": "1"}}
            for unit in range(14)
        ],
        "headline": "Massive activations in 1 channel. Up to 16 of 665 tokens are sinks in layers 3–5.",
    }  # fmt: skip


def single() -> dict[str, Any]:
    """Of one site in no layer, with the least that can be collected."""
    bare = {"site": "logits", "kind": "logits", "layer": None, "rows": 4, "skipped": 1, "units": 10}
    return {
        "schema": "optrode.statistics-summary/1", "info": {"model": "activations", "data": [], "unit": "row"},
        "rows": 4, "skipped": 1, "sites": [bare], "massive": [], "sinks": [], "outliers": [], "headline": "Nothing.",
    }  # fmt: skip


def printed(summary: dict[str, Any], width: int = 110) -> str:
    stream = io.StringIO()
    print_statistics(summary, Console(file=stream, width=width))
    return stream.getvalue()


# The page -------------------------------------------------------------------------------------------------------------


def test_page_says_what_matters() -> None:
    text = re.sub(r"\s+", " ", Page(render(fake_summary())).text)
    for part in (
        "Activations of smollm2-135m", "Up to 16 of 665 tokens are sinks",
        "185 ×", "layers.{0,3-5}.out", "3 more rows are in the embedded result", "2 more channels", "layers.5.out",
        "all positions", "208 ×", "−910",
    ):  # fmt: skip
        assert part in text, part
    cells = ["507", "−25,497", "1.50", "␣Al", "3", "0", "layers.3-5.out"]
    shows = view(fake_summary())["tables"]["massive"]
    assert [shows["lines"][0][column["key"]] for column in shows["columns"]] == cells and "".join(cells) in text
    order = [
        text.index(part) for part in ("How large", "largest value of each channel", "Rows whose norm", "All sites")
    ]
    assert order == sorted(order) and not re.search(r"\b(None|nan|undefined)\b", text)


def test_the_patterns_it_shows_are_patterns() -> None:
    from optrode.sites import select

    addresses = [f"layers.{layer}.out" for layer in LAYERS]
    shows = view(fake_summary())["tables"]
    assert select(shows["massive"]["lines"][0]["layers"], addresses, 6) == addresses[3:]
    assert select(shows["sinks"]["lines"][0]["layers"], addresses, 6) == [addresses[0], *addresses[3:]]


def test_every_chart_has_its_spec_and_the_policy_its_scripts() -> None:
    page = render(fake_summary())
    parsed = Page(page)
    figures = [attributes["data-chart"] for tag, attributes in parsed.tags if tag == "figure"]
    assert sorted(figures) == sorted(DRAWN)
    specs = [json.loads(text) for attributes, text in parsed.scripts if attributes.get("type") == "application/json"]
    assert sum("$schema" in spec for spec in specs) == len(DRAWN)
    assert policy_of(page).startswith("default-src 'none'; ") and "unsafe-eval" not in policy_of(page)
    loading = [key for _, attributes in parsed.tags for key in attributes if key in ("src", "href", "srcset", "data")]
    assert not loading


def test_foreign_text_stays_text() -> None:
    hostile = everywhere(fake_summary())
    # The page asks what these are.
    hostile["info"] |= {key: fake_summary()["info"][key] for key in ("unit", "mask")}
    clean, dirty = Page(render(fake_summary())), Page(render(hostile))
    assert [tag for tag, _ in dirty.tags] == [tag for tag, _ in clean.tags]
    assert not [key for _, attributes in dirty.tags for key in attributes if key.startswith("on")]
    assert "{{ 7*7 }}" in dirty.text.replace("␣", " ") and "\x1b" not in dirty.text and "\u202e" not in dirty.text
    ours = [content for attributes, content in dirty.scripts if "type" not in attributes]
    assert ours and all("window.broken" not in script for script in ours)
    assert "<script>window.broken" not in render(hostile)


class Of:
    """Stands for statistics; `summary` is replaced where it is used."""


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes `write_statistics` write this summary."""
    # `optrode.stats` is the function of that name, so its modules are not attributes of it.
    module = importlib.import_module("optrode.stats.summary")
    return lambda summary: monkeypatch.setattr(module, "summary", lambda _: summary)


def test_the_summary_comes_back_from_the_file(given: Any, tmp_path: Path) -> None:
    summary = everywhere(fake_summary())
    given(summary)
    path = write_statistics(Of(), tmp_path / "deep" / "stats.html")  # type: ignore[arg-type]
    assert read_report(path) == summary and summary["headline"].endswith(PAYLOAD)
    assert path.stat().st_size < 3_000_000 and [path] == list(path.parent.iterdir())


def test_a_failed_write_leaves_what_was_there(given: Any, tmp_path: Path) -> None:
    path = tmp_path / "stats.html"
    path.write_text("before")
    given({**fake_summary(), "info": {"model": object()}})
    with pytest.raises(BadInput, match="JSON"):
        write_statistics(Of(), path)  # type: ignore[arg-type]
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_what_is_not_there_is_not_shown() -> None:
    """One site without layers: no chart, no empty section, no library, no column without content."""
    page = Page(render(single()))
    heads = [tag for tag, _ in page.tags if tag == "h2"]
    assert len(heads) == 1 and "All sites" in page.text and "figure" not in [tag for tag, _ in page.tags]
    assert "ot collected" not in page.text and "Activations of" not in page.text
    assert not [attributes for attributes, _ in page.scripts if "type" not in attributes]
    assert [column["key"] for column in view(single())["tables"]["sites"]["columns"]] == ["site"]
    assert "1 left out: NaN or infinity" in page.text
    one = {**fake_summary(), "sites": [line(3)]}
    assert all(draw(one) is None for name, draw in DRAWN.items() if name != "outliers")
    assert "Sinks" in Page(render(one)).text


@pytest.mark.parametrize("key", [key for key in fake_summary() if key != "schema"])
def test_any_part_may_be_null_or_absent(key: str) -> None:
    absent = {name: value for name, value in fake_summary().items() if name != key}
    assert view({**fake_summary(), key: None}) == view(absent)
    assert "<h1" in render(absent) and printed(absent)


def test_rows_are_a_column_only_where_sites_differ() -> None:
    summary = fake_summary()
    assert "rows" not in [column["key"] for column in view(summary)["tables"]["sites"]["columns"]]
    summary["sites"][2]["rows"], summary["info"]["unit"] = 1000, "pixel"
    shows = view(summary)
    assert "rows" in [column["key"] for column in shows["tables"]["sites"]["columns"]]
    assert ("Pixels", "665 to 1,000") in [(fact["term"], fact["value"]) for fact in shows["facts"]]
    assert "Counted" not in [fact["term"] for fact in shows["facts"]]


# Charts ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
def test_chart_draws_and_leaves_the_summary_alone(draw: Any) -> None:
    summary = fake_summary()
    before = copy.deepcopy(summary)
    svg = rendered(draw(summary))
    assert len(re.findall("<path", svg)) > 5 and "NaN" not in svg and summary == before
    assert draw({}) is None and draw(single()) is None
    assert "<script" not in rendered(draw(everywhere(summary)))


def test_charts_show_the_numbers_that_are_there() -> None:
    points = values_of(charts.site_norms(fake_summary()))
    assert {(p["layer"], p["size"]) for p in points if p["measure"] == "median norm"} == {(n, 60.0 + n) for n in LAYERS}
    assert {(p["size"], p["high"]) for p in points if p["measure"] == charts.BAND} == {(40.0 + n, 90.0) for n in LAYERS}
    largest = [p for p in values_of(charts.site_magnitudes(fake_summary())) if p["measure"] == "largest magnitude"]
    assert [p["size"] for p in largest] == [31.0] * 3 + [24_900.0] * 3 and "507" in largest[0]["where"]
    cells = values_of(charts.outlier_channels(fake_summary()))
    assert len(cells) == 14 * 6 and max(cell["ratio"] for cell in cells) == 208.0
    assert [bar["size"] for bar in values_of(charts.sink_counts(fake_summary()))] == [0, 0, 0, 16, 16, 16]
    assert [bar["size"] for bar in values_of(charts.silent_shares(fake_summary()))] == [0] * 5 + [4 / 64]


def test_kinds_of_sites_have_panels_of_their_own() -> None:
    summary = fake_summary()
    others = [{**line(layer), "kind": "layers.*.mlp.hidden"} for layer in LAYERS]
    summary["sites"] += [*others, {**line(0), "kind": "embed", "layer": None}]
    chart = charts.site_norms(summary).to_dict()
    assert chart["facet"]["sort"] == ["layers.*.out", "layers.*.mlp.hidden"]
    assert len(re.findall("layers.*.mlp.hidden", rendered(charts.site_norms(summary)))) >= 1


# The terminal ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [80, 100, 140])
def test_terminal_table_fits_and_cuts_no_number(width: int) -> None:
    output = printed(fake_summary(), width)
    assert max(len(row.rstrip()) for row in output.splitlines()) <= width and "…" not in output
    for part in ("−25,497", "185 ×", "layers.{0,3-5}.out", "and 9 more", "and 8 more", "tokens 665"):
        assert part in output, part
    row = next(row for row in output.splitlines() if row.startswith("layers.5.out"))
    assert row.split() == ["layers.5.out", "65.0", "25,000", "24,900", "507", "␣Al", "2", "16", "4"]
    # One word a line of the heads, so that they are whole too.
    assert all(word in output.split() for word in ("median", "largest", "norm", "outliers", "silent"))


def test_long_names_and_tokens_leave_room_for_the_numbers() -> None:
    summary = fake_summary()
    for item in summary["sites"]:
        item["site"] = f"vision.layers.{item['layer']}.experts.hidden.before.anything.else"
        item["largest"]["text"] = "word" * 30
    output = printed(summary, 80)
    assert max(len(row.rstrip()) for row in output.splitlines()) <= 80
    assert output.count("25,000") == 3 and "word" * 3 + "wor…" in output


def test_foreign_text_cannot_repaint_the_terminal() -> None:
    output = printed(everywhere(fake_summary()), 200)
    assert "\x1b" not in output and "\u202e" not in output and "[red]" in re.sub(r"\s", "", output)


def test_signs_for_what_cannot_be_seen() -> None:
    assert shown("\t \n") == "⇥␣↵" and html.escape(shown("<b>")) == "&lt;b&gt;"
