"""Statistics of activations by layer: norms, sizes of values, outlier channels, sinks, silent units."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import altair as alt

from optrode.report import theme
from optrode.report.charts.marks import FIT_WIDTH, Result, finished, gaps, inline, layer_axis, log_ticks
from optrode.report.foreign import harmless
from optrode.report.result import finite, records
from optrode.report.text import decimal, plain

HEIGHT = 240
CHANNELS_SHOWN = 16
# Pixels that the axis of a panel and its title take, for the page to fit the panels in.
PANEL_AXIS = 60
# What the legend says of the band, and its colour there.
BAND, _PALE = "nine of ten rows", "rgba(74,112,230,0.35)"
SEQUENTIAL = ("rgba(134,140,148,0.10)", "rgba(214,132,60,0.75)", "rgba(196,86,12,1)")
_BLUE, _SKY, _ORANGE = theme.METHOD_COLOURS[0], theme.METHOD_COLOURS[3], theme.METHOD_COLOURS[1]


def site_norms(summary: Result) -> Any:
    """Norm of rows by layer on a log scale: the median, a band from the 5th to the 95th percentile, the largest."""
    measures = {"norm_median": "median norm", "norm_max": "largest norm"}
    points = _points(summary, measures, ("norm_p05", "norm_p95"))
    colours = (_BLUE, theme.NEUTRAL, _PALE)
    return _lines(points, [*measures.values(), BAND], colours, "norm (log scale)", "Norm of rows by layer")


def site_magnitudes(summary: Result) -> Any:
    """Magnitude of single values by layer on a log scale, with the bound from which one is massive."""
    measures = {
        "magnitude_median": "median magnitude", "magnitude_p99": "99th percentile", "largest": "largest magnitude",
        "massive_from": "massive from here on",
    }  # fmt: skip
    points = _points(summary, measures, None)
    colours = (_BLUE, _SKY, _ORANGE, theme.NEUTRAL)
    return _lines(points, list(measures.values()), colours, "magnitude (log scale)", "Magnitude of values by layer")


def outlier_channels(summary: Result) -> Any:
    """Root mean square of outlier channels, in multiples of the usual channel's, by layer."""
    items = records(summary, "outliers")
    kinds = Counter(harmless(item.get("kind")) for item in items)
    most = CHANNELS_SHOWN if len(kinds) == 1 else CHANNELS_SHOWN // 2
    seen: Counter[str] = Counter()
    cells = []
    for item in items:
        kind = harmless(item.get("kind"))
        seen[kind] += 1
        cells += _cells(item, kind) if seen[kind] <= most else []
    cells = _over_layers(cells)
    if not cells:
        return None
    order = list(dict.fromkeys(cell["channel"] for cell in cells))
    top = max(10.0, *(cell["ratio"] for cell in cells))
    scale = alt.Scale(type="log", domain=[1, top**0.5, top], range=list(SEQUENTIAL), interpolate="rgb", clamp=True)
    legend = alt.Legend(
        title="times the usual channel", gradientLength=220, gradientThickness=10, titleLimit=260, format="~s",
        values=[tick for tick in log_ticks([1.0, top]) if tick <= top],
    )  # fmt: skip
    marks = alt.Chart().mark_rect(cornerRadius=2).encode(
        x=alt.X("layer:O", title="layer", scale=gaps(), axis=alt.Axis(labelAngle=0, labelOverlap=True)),
        y=alt.Y("channel:N", title="channel", sort=order, scale=gaps()),
        color=alt.Color("ratio:Q", scale=scale, legend=legend),
        tooltip=[alt.Tooltip("kind:N", title="site"), alt.Tooltip("channel:N"), alt.Tooltip("layer:O"),
                 alt.Tooltip("shown:N", title="times the usual")],
    )  # fmt: skip
    shown = len({cell["channel"] for cell in cells}) if len({cell["kind"] for cell in cells}) == 1 else None
    height = 22 * shown if shown else alt.Step(22)
    return _panels(marks, cells, height, "Heat map of outlier channels by layer")


def _cells(item: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """An outlier channel in each layer."""
    channel = plain(item.get("unit"))
    return [
        {"kind": kind, "channel": channel, "layer": ratio["layer"], "ratio": max(size, 1.0), "shown": decimal(size)}
        for ratio in records(item, "ratios")
        if finite(ratio.get("layer")) is not None and (size := finite(ratio.get("ratio"))) is not None
    ]


def sink_counts(summary: Result) -> Any:
    """How many rows are sinks, by layer."""
    return _bars(
        summary, "sinks", "rows that are sinks", lambda count, line: count, "Number of sink tokens by layer", "d"
    )


def silent_shares(summary: Result) -> Any:
    """Share of units that never left zero, by layer."""
    return _bars(
        summary, "silent_units", "units never on", lambda count, line: count / line["units"],
        "Share of silent units by layer", ".0%",
    )  # fmt: skip


def _over_layers(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What belongs to a kind of site that has several layers; a single one has no course to draw."""
    layers: dict[str, set[float]] = {}
    for line in lines:
        if (layer := finite(line.get("layer"))) is not None:
            layers.setdefault(harmless(line.get("kind")), set()).add(layer)
    return [
        line for line in lines if finite(line.get("layer")) is not None and len(layers[harmless(line.get("kind"))]) > 1
    ]


def _points(summary: Result, measures: dict[str, str], band: tuple[str, str] | None) -> list[dict[str, Any]]:
    points = []
    for line in _over_layers(records(summary, "sites")):
        place = {"kind": harmless(line.get("kind")), "layer": line["layer"]}
        for key, measure in measures.items():
            value = line.get(key)
            where = ""
            if isinstance(value, dict):
                where = f"channel {plain(value.get('unit'))}, “{harmless(value.get('text'))}”"
                value = value.get("value")
            size = abs(finite(value) or 0.0)
            if size > 0:
                points.append({**place, "measure": measure, "size": size, "shown": decimal(size), "where": where})
        low, high = (finite(line.get(key)) for key in band or ("", ""))
        if low and high:
            points.append({**place, "measure": BAND, "size": low, "high": high})
    return points


def _lines(points: list[dict[str, Any]], measures: list[str], colours: tuple[str, ...], title: str, says: str) -> Any:
    if not points:
        return None
    shown = [measure for measure in measures if any(point["measure"] == measure for point in points)]
    palette = [colour for measure, colour in zip(measures, colours, strict=True) if measure in shown]
    ticks = log_ticks([size for point in points for size in (point["size"], point.get("high", point["size"]))])
    y = alt.Y("size:Q", title=title, scale=alt.Scale(type="log", nice=False, padding=8), axis=_log_axis(ticks))
    colour = alt.Color("measure:N", scale=alt.Scale(domain=shown, range=palette), legend=alt.Legend())
    dash = alt.condition("datum.measure == 'massive from here on'", alt.value([4, 4]), alt.value([1, 0]))
    tooltip = [alt.Tooltip("layer:Q"), alt.Tooltip("measure:N"), alt.Tooltip("shown:N", title="size"),
               alt.Tooltip("where:N")]  # fmt: skip
    base = alt.Chart().encode(x=layer_axis())
    band = (
        base.mark_area(color=palette[0], opacity=0.18)
        .encode(y=y, y2="high:Q")
        .transform_filter(f"datum.measure == '{BAND}'")
    )
    named = base.transform_filter(f"datum.measure != '{BAND}'").encode(y=y, color=colour, tooltip=tooltip)
    lines = named.mark_line(strokeWidth=2).encode(strokeDash=dash, detail="measure:N")
    dots = named.mark_point(filled=True, size=30, opacity=1).transform_filter("datum.measure != 'massive from here on'")
    layers = [lines, dots]
    if any(point["measure"] == BAND for point in points):
        layers.insert(0, band)
    return _panels(alt.layer(*layers), points, HEIGHT, says)


def _log_axis(ticks: list[float]) -> alt.Axis:
    # 0.1 rather than 100m.
    label = "datum.value < 1 ? format(datum.value, '~g') : format(datum.value, '~s')"
    return alt.Axis(values=ticks, labelExpr=label)


def _bars(
    summary: Result, key: str, title: str, value: Callable[[float, dict[str, Any]], float], says: str, form: str
) -> Any:
    bars = [
        {"kind": harmless(line.get("kind")), "layer": line["layer"], "size": value(count, line), "shown": plain(count)}
        for line in _over_layers(records(summary, "sites"))
        if (count := finite(line.get(key))) is not None
    ]
    # A kind of site that has none anywhere is no panel.
    some = {bar["kind"] for bar in bars if bar["size"]}
    bars = [bar for bar in bars if bar["kind"] in some]
    if not bars:
        return None
    axis = alt.Axis(format=form, tickCount=4, tickMinStep=1 if form == "d" else 0)
    marks = alt.Chart().mark_bar(color=_BLUE, cornerRadiusEnd=2).encode(
        x=alt.X("layer:O", title="layer", axis=alt.Axis(grid=False, labelAngle=0, labelOverlap=True),
                scale=alt.Scale(paddingInner=0.3)),
        y=alt.Y("size:Q", title=title, axis=axis),
        tooltip=[alt.Tooltip("layer:O"), alt.Tooltip("shown:N", title="how many")],
    )  # fmt: skip
    return _panels(marks, bars, 160, says)


def _panels(marks: Any, points: list[dict[str, Any]], height: Any, says: str) -> Any:
    """One chart, or one panel for each kind of site where there are several."""
    kinds = list(dict.fromkeys(point["kind"] for point in points))
    if len(kinds) == 1:
        chart = marks.properties(data=inline(points), width="container", height=height, autosize=FIT_WIDTH)
        return finished(chart, says)
    if not isinstance(marks, alt.LayerChart):
        marks = alt.layer(marks)
    panel = marks.properties(data=inline(points), width=228, height=200 if height == HEIGHT else height)
    facets = panel.facet(facet=alt.Facet("kind:N", sort=kinds, title=None), columns=3, spacing=28)
    drawn = facets.resolve_scale(y="independent").properties(usermeta={"panelAxis": PANEL_AXIS, "panels": len(kinds)})
    return finished(drawn, f"{says}, one panel for each kind of site")
