"""Colours and chart settings: legible on white and on near-black, and to colour-blind readers.

Every colour has a contrast of about 3 or more on both grounds. The first hues were chosen to lie far apart under
normal, deuteranope and protanope vision; shapes repeat what colours say. Text and rules are `currentColor`, so a chart
in a page follows the page.
"""

from __future__ import annotations

from typing import Any

from optrode.report.result import name_of, names, records

METHOD_COLOURS = ("#4a70e6", "#df7a0a", "#c0358e", "#3f9de2", "#ad5730", "#159a7c", "#d87884", "#8a6fc4")
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")
BASELINE_COLOURS = ("#6b7f73", "#92836a", "#677a94")
NEUTRAL = "#868c94"
INK = "currentColor"
# From harmful to helpful; the middle lets the page through, so that "no effect" is empty on any ground.
DIVERGING = (
    "rgba(196,86,12,1)",
    "rgba(214,132,60,0.75)",
    "rgba(134,140,148,0.10)",
    "rgba(80,126,220,0.75)",
    "rgba(46,84,206,1)",
)

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

CONFIG: dict[str, Any] = {
    "background": "transparent",
    "font": FONT,
    "padding": 4,
    "view": {"stroke": None},
    "axis": {
        "labelColor": INK,
        "labelOpacity": 0.75,
        "labelFontSize": 11.5,
        "labelPadding": 6,
        "titleColor": INK,
        "titleOpacity": 0.9,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "titlePadding": 10,
        "domain": False,
        "ticks": False,
        "gridColor": INK,
        "gridOpacity": 0.12,
    },
    "axisY": {"labelLimit": 190},
    "legend": {
        "orient": "top",
        "title": None,
        "labelColor": INK,
        "labelFontSize": 12,
        "labelLimit": 220,
        "titleColor": INK,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "symbolOpacity": 1,
        "symbolSize": 70,
        "symbolStrokeWidth": 2,
        "columnPadding": 18,
        "rowPadding": 5,
        "offset": 14,
    },
    "header": {
        "labelColor": INK,
        "labelFontSize": 12.5,
        "labelFontWeight": 600,
        "labelAnchor": "start",
        "labelLimit": 250,
        "labelPadding": 8,
    },
    "text": {"color": INK, "fontSize": 11.5},
    "rule": {"color": INK},
}


def colours(result: dict[str, Any]) -> dict[str, str]:
    """One colour per method for the whole report: methods by rank, baselines muted, controls and unsteered grey."""
    rows = records(result, "rows")
    kinds = {name_of(row): row.get("kind") for row in rows}
    chosen: dict[str, str] = {}
    methods = baselines = 0
    for name in names(rows, records(result, "search"), records(result, "dose")):
        if kinds.get(name) in ("control", "unsteered"):
            chosen[name] = NEUTRAL
        elif kinds.get(name) == "baseline":
            chosen[name] = BASELINE_COLOURS[baselines % len(BASELINE_COLOURS)]
            baselines += 1
        else:
            chosen[name] = METHOD_COLOURS[methods % len(METHOD_COLOURS)]
            methods += 1
    return chosen


def shapes(result: dict[str, Any]) -> dict[str, str]:
    """One point shape per method, so that colour is never the only sign."""
    return {name: SHAPES[index % len(SHAPES)] for index, name in enumerate(colours(result))}
