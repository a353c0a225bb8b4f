"""What changes from layer to layer: how well a probe reads the behaviour, and the norm of the stream."""

from __future__ import annotations

from typing import Any

import altair as alt

from optrode.report import theme
from optrode.report.charts.marks import FIT_WIDTH, Result, chart_of, finished, layer_axis, log_ticks
from optrode.report.foreign import harmless
from optrode.report.result import finite, finite_interval, records
from optrode.report.text import decimal, measured


def probe_accuracy(result: Result) -> alt.LayerChart | None:
    """How well a linear probe reads the behaviour at each layer, with its interval and the rate of a guess."""
    items = records(result, "probe_accuracy")
    points = [
        {
            "layer": item["layer"],
            "accuracy": accuracy.value,
            "low": accuracy.low,
            "high": accuracy.high,
            "shown": measured(item.get("accuracy")),
        }
        for item in items
        if finite(item.get("layer")) is not None and (accuracy := finite_interval(item.get("accuracy"))).measured
    ]
    if not points:
        return None
    x = layer_axis()
    percent = alt.Axis(format=".0%", tickCount=5)
    base = chart_of(points).encode(x=x)
    scale = alt.Scale(zero=False, nice=True)
    y = alt.Y("accuracy:Q", title="probe accuracy", axis=percent, scale=scale)
    colour = theme.METHOD_COLOURS[0]
    tooltip = [alt.Tooltip("layer:Q"), alt.Tooltip("shown:N", title="accuracy")]
    layers = [
        base.mark_area(color=colour, opacity=0.18).encode(
            y=alt.Y("low:Q", title="probe accuracy", scale=scale), y2="high:Q"
        ),
        base.mark_line(color=colour, strokeWidth=2).encode(y=y),
        base.mark_point(color=colour, filled=True, size=34, opacity=1).encode(y=y, tooltip=tooltip),
    ]
    chance = next((value for item in (*items, result) if (value := finite(item.get("chance"))) is not None), None)
    if chance is not None:
        rule = chart_of([{"chance": chance, "label": f"chance {chance:.0%}"}]).encode(y="chance:Q")
        layers.append(rule.mark_rule(strokeDash=[4, 4], opacity=0.6))
        layers.append(rule.mark_text(align="right", dy=-8, opacity=0.8).encode(x=alt.value("width"), text="label:N"))
    chart = alt.layer(*layers).properties(width="container", height=240, autosize=FIT_WIDTH)
    done: alt.LayerChart = finished(chart, "Probe accuracy by layer with interval and chance rate")
    return done


def norms(result: Result) -> alt.LayerChart | None:
    """Norm of the stream by layer on a log scale, with the largest single activations called out."""
    kinds = {"median": "median norm", "p95": "95th percentile norm", "max": "largest norm"}
    points = [
        {"layer": item["layer"], "size": size, "kind": kind, "shown": decimal(size)}
        for item in records(result, "norms")
        if finite(item.get("layer")) is not None
        for key, kind in kinds.items()
        if (size := finite(item.get(key))) is not None and size > 0
    ]
    peaks = _massive_points(result)
    if not points and not peaks:
        return None
    y_title = "size (log scale)"
    ticks = log_ticks([point["size"] for point in (*points, *peaks)])
    domain = [*kinds.values(), *(["massive activation"] if peaks else [])]
    palette = [theme.METHOD_COLOURS[0], theme.METHOD_COLOURS[3], theme.NEUTRAL, theme.METHOD_COLOURS[1]]
    colour = alt.Color("kind:N", scale=alt.Scale(domain=domain, range=palette[: len(domain)]), legend=alt.Legend())
    y = alt.Y("size:Q", title=y_title, scale=alt.Scale(type="log", nice=True), axis=alt.Axis(values=ticks, format="~s"))
    tooltip = [alt.Tooltip("layer:Q"), alt.Tooltip("kind:N"), alt.Tooltip("shown:N", title="size")]
    base = chart_of(points).encode(x=layer_axis(), y=y, color=colour)
    layers = [base.mark_line(strokeWidth=2).encode(tooltip=tooltip)]
    if peaks:
        marks = chart_of(peaks).encode(x=layer_axis(), y=y)
        layers.append(
            marks.mark_point(filled=True, size=48, opacity=1).encode(
                color=colour, tooltip=[*tooltip, alt.Tooltip("label:N", title="where")]
            )
        )
        layers.append(
            marks.mark_text(align="center", dy=-12, limit=260)
            .encode(text="label:N")
            .transform_filter("datum.called_out")
        )
    chart = alt.layer(*layers).properties(width="container", height=240, autosize=FIT_WIDTH)
    done: alt.LayerChart = finished(chart, "Norm of the stream by layer on a log scale, with massive activations")
    return done


def _massive_points(result: Result) -> list[dict[str, Any]]:
    points = [
        {
            "layer": item["layer"],
            "size": abs(value),
            "kind": "massive activation",
            "shown": decimal(value),
            "label": f"channel {harmless(item.get('channel'))}, “{harmless(item.get('token'))}”",
            "called_out": False,
        }
        for item in records(result, "massive")
        if finite(item.get("layer")) is not None and (value := finite(item.get("value")))
    ]
    if points:
        max(points, key=lambda point: point["size"])["called_out"] = True
    return points
