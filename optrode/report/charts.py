"""The report's charts: each a pure function from a result to an Altair chart, or None when there is nothing to draw.

Data travel inside the chart as plain values, so no data frame library is needed and no chart loads anything. Foreign
texts (method names, tokens) appear as data only, never inside an expression.
"""

from __future__ import annotations

import math
from typing import Any

import altair as alt

from optrode.report import theme
from optrode.report.foreign import harmless
from optrode.report.result import (
    budget,
    finite,
    finite_interval,
    name_of,
    names,
    over_budget,
    records,
    spread,
)
from optrode.report.text import decimal, measured

Result = dict[str, Any]
_FIT_WIDTH = alt.AutoSizeParams(type="fit-x", contains="padding")


def ranking(result: Result) -> alt.LayerChart | None:
    """Judged behaviour shift per row, best first, with intervals; the random directions as a band and a strip."""
    rows = [
        {
            "method": name_of(row),
            "shift": shift.value,
            "low": shift.low,
            "high": shift.high,
            "shown": measured(row.get("shift")),
        }
        for row in records(result, "rows")
        if row.get("kind") != "unsteered" and (shift := finite_interval(row.get("shift"))).measured
    ]
    if not rows:
        return None
    order = names(rows)
    bars = [row for row in rows if row["method"] != _random_row(result)]  # the strip already shows how that one spreads
    y = alt.Y("method:N", sort=order, title=None, axis=alt.Axis(grid=False, labelFontSize=12.5))
    x_title = "judged behaviour shift"
    x = alt.X("shift:Q", title=x_title, axis=alt.Axis(tickCount=8))
    tooltip = [alt.Tooltip("method:N", title="method"), alt.Tooltip("shown:N", title="shift")]
    base = _on(rows).encode(y=y)
    points = base.mark_point(filled=True, size=95, opacity=1).encode(
        x=x, color=_colour(result, order), shape=_shape(result, order), tooltip=tooltip
    )
    intervals = (
        _on(bars)
        .encode(y=y)
        .mark_rule(strokeWidth=2.5, opacity=0.8, strokeCap="round")
        .encode(x=alt.X("low:Q", title=x_title), x2="high:Q", color=_colour(result, order))
    )
    layers = [*_random_band(result, order), _zero("x"), intervals, points]
    chart = alt.layer(*layers).properties(width="container", height=34 * len(order), autosize=_FIT_WIDTH)
    finished: alt.LayerChart = _finished(chart, "Ranked dot plot of judged behaviour shift with intervals")
    return finished


def _random_row(result: Result) -> str | None:
    """The name of the row whose single random directions are drawn as a strip."""
    rows = [
        row for row in records(result, "rows") if isinstance(row.get("spread"), dict) and row["spread"].get("values")
    ]
    return name_of(rows[0]) if rows else None


def _random_band(result: Result, order: list[str]) -> list[alt.Chart]:
    random, row = spread(result), _random_row(result)
    low, high = finite(random.get("p05")), finite(random.get("p95"))
    layers = []
    if low is not None and high is not None:
        band = _on([{"low": low, "high": high}]).mark_rect(color=theme.NEUTRAL, opacity=0.2)
        layers.append(band.encode(x="low:Q", x2="high:Q", tooltip=[alt.Tooltip("low:Q"), alt.Tooltip("high:Q")]))
    values = [
        {"method": row, "value": value} for item in random.get("values") or [] if (value := finite(item)) is not None
    ]
    if row in order and values:
        strip = _on(values).mark_tick(color=theme.NEUTRAL, thickness=1.5, size=16, opacity=0.8)
        layers.append(strip.encode(x="value:Q", y=alt.Y("method:N", sort=order, title=None)))
    return layers


def search(result: Result) -> alt.FacetChart | None:
    """Log-odds shift by layer and strength, one panel per method; crosses are over budget, the frame is the choice."""
    limit = budget(result)
    cells: list[dict[str, Any]] = [
        {
            "method": name_of(cell),
            "layer": cell.get("layer"),
            "strength": cell.get("strength"),
            "effect": effect,
            "shown": measured(cell.get("log_odds")),
            "cost": measured(cell.get("perplexity_ratio")),
            "over": over_budget(cell, limit),
            "chosen": cell.get("chosen") is True,
        }
        for cell in records(result, "search")
        if finite(cell.get("layer")) is not None
        and finite(cell.get("strength")) is not None
        and (effect := finite_interval(cell.get("log_odds")).value) is not None
    ]
    if not cells:
        return None
    reach = max(abs(cell["effect"]) for cell in cells) or 1.0
    ranked = [name for name in names(records(result, "rows"), cells) if name in set(names(cells))]
    base = alt.Chart().encode(
        x=alt.X("layer:O", title="layer", scale=_gaps(), axis=alt.Axis(labelAngle=0, labelOverlap=True)),
        y=alt.Y("strength:O", title="strength", scale=_gaps(), sort="descending"),
    )
    colour = alt.Color(
        "effect:Q",
        scale=alt.Scale(
            domain=[-reach, -reach / 2, 0, reach / 2, reach], range=list(theme.DIVERGING), interpolate="rgb"
        ),
        legend=alt.Legend(
            title="log-odds shift (nats)", gradientLength=220, gradientThickness=10, titleLimit=260, format=".2~f"
        ),
    )
    tooltip = [
        alt.Tooltip("method:N"),
        alt.Tooltip("layer:O"),
        alt.Tooltip("strength:O"),
        alt.Tooltip("shown:N", title="log-odds shift"),
        alt.Tooltip("cost:N", title="perplexity ratio"),
    ]
    squares = base.mark_rect(cornerRadius=2).encode(color=colour, tooltip=tooltip)
    crosses = base.mark_text(
        text="×", fontSize=13 if len({cell["layer"] for cell in cells}) <= 12 else 9, opacity=0.8
    ).transform_filter("datum.over")
    frames = base.mark_rect(fill=None, stroke=theme.INK, strokeWidth=2, cornerRadius=2).transform_filter("datum.chosen")
    # Methods may try strengths of their own, so each panel has its own rows.
    height = 24 * max(len({c["strength"] for c in cells if c["method"] == method}) for method in ranked)
    chart = alt.layer(squares, crosses.encode(tooltip=tooltip), frames, data=_data(cells))
    facets = (
        chart.properties(width=228, height=height)
        .facet(facet=alt.Facet("method:N", sort=ranked, title=None), columns=3, spacing=28)
        .resolve_scale(y="independent")
    )
    finished: alt.FacetChart = _finished(facets, "Heat maps of log-odds shift by layer and strength, one per method")
    return finished


def effect_against_kl(result: Result) -> alt.LayerChart | None:
    """Effect against the KL divergence on neutral text, along strength, one line per method."""
    title = "KL on neutral text (nats per token)"
    return _effect_against(result, "kl_neutral", title, logarithmic=True, places=3)


def effect_against_perplexity(result: Result) -> alt.LayerChart | None:
    """Effect against the perplexity ratio on neutral text, along strength, with the budget as a dashed rule."""
    ratios = [finite_interval(row.get("perplexity_ratio")).value or 1.0 for row in records(result, "dose")]
    logarithmic = max(ratios, default=1.0) > 3
    title = "perplexity ratio on neutral text" + (" (log scale)" if logarithmic else "")
    return _effect_against(result, "perplexity_ratio", title, logarithmic=logarithmic, places=2)


def _effect_against(result: Result, cost: str, title: str, *, logarithmic: bool, places: int) -> alt.LayerChart | None:
    effect = (
        "log_odds" if any(finite_interval(row.get("log_odds")).measured for row in records(result, "dose")) else "shift"
    )
    steps = _dose_points(result, "dose", effect, cost, logarithmic, places)
    if not steps:
        return None
    baselines = [
        row for row in _dose_points(result, "rows", effect, cost, logarithmic, places) if row["kind"] == "baseline"
    ]
    present = set(names(steps, baselines))
    shown = [name for name in names(records(result, "rows"), steps) if name in present]
    effect_title = "log-odds shift (nats)" if effect == "log_odds" else "judged behaviour shift"
    picked = alt.selection_point(name="picked", fields=["method"], bind="legend")
    encoding: dict[str, Any] = {
        "x": _cost_axis([point["cost"] for point in (*steps, *baselines)], title, logarithmic=logarithmic),
        "y": alt.Y("effect:Q", title=effect_title, axis=alt.Axis(tickCount=6)),
        "color": _colour(result, shown, legend=True),
        "opacity": alt.condition(picked, alt.value(1.0), alt.value(0.12)),
    }
    base = _on(steps).encode(**encoding)
    lines = base.mark_line(strokeWidth=2, strokeJoin="round").encode(order=alt.Order("strength:Q"))
    intervals = base.mark_rule(strokeWidth=1).encode(
        y=alt.Y("low:Q", title=effect_title),
        y2="high:Q",
        opacity=alt.condition(picked, alt.value(0.4), alt.value(0.06)),
    )
    shape = _shape(result, shown, legend=True)
    points = base.mark_point(filled=True, size=46).encode(shape=shape, tooltip=_dose_tooltip()).add_params(picked)
    layers = [_zero("y"), intervals, lines, points]
    if baselines:
        # Prompting and its like have no strength: a point, and a line at its height to compare the curves with.
        level = _on(baselines).encode(**encoding)
        layers.append(level.mark_rule(strokeDash=[2, 3], strokeWidth=1.25).encode(x2=alt.value("width")))
        layers.append(level.mark_point(filled=True, size=90).encode(shape=shape, tooltip=_dose_tooltip()))
    limit = budget(result)
    if cost == "perplexity_ratio" and limit is not None:
        rule = _on([{"limit": limit, "label": "budget"}]).encode(x="limit:Q")
        layers.append(rule.mark_rule(strokeDash=[4, 4], opacity=0.6))
        layers.append(rule.mark_text(align="left", dx=5, dy=2, baseline="top", y=0, opacity=0.8).encode(text="label:N"))
    chart = alt.layer(*layers).properties(width="container", height=320, autosize=_FIT_WIDTH)
    finished: alt.LayerChart = _finished(chart, f"{effect_title} against {title}, one line per method")
    return finished


def _cost_axis(costs: list[float], title: str, *, logarithmic: bool) -> alt.X:
    if not logarithmic:
        return alt.X(
            "cost:Q",
            title=title,
            scale=alt.Scale(zero=False, padding=10),
            axis=alt.Axis(tickCount=5, labelOverlap=True),
        )
    axis = alt.Axis(values=_log_ticks(costs), labelOverlap=True, format="~g")
    return alt.X("cost:Q", title=title, scale=alt.Scale(type="log", nice=False, padding=10), axis=axis)


def _log_ticks(values: list[float]) -> list[float]:
    """Few round values over the range: powers of ten, and multiples of them where the range is short."""
    low, high = math.log10(min(values)), math.log10(max(values))
    steps = (1, 1.5, 2, 3, 5, 7) if high - low < 1 else (1, 3) if high - low < 3 else (1,)
    ticks = [float(f"{step}e{power}") for power in range(math.floor(low), math.ceil(high) + 1) for step in steps]
    return [tick for tick in ticks if min(values) * 0.8 <= tick <= max(values) * 1.25] or [min(values), max(values)]


def _dose_points(
    result: Result, key: str, effect: str, cost: str, logarithmic: bool, places: int
) -> list[dict[str, Any]]:
    points = []
    for row in records(result, key):
        gain, price = finite_interval(row.get(effect)), finite_interval(row.get(cost)).value
        # A log axis has no place for zero, which is where an untouched model stands.
        if not gain.measured or price is None or (logarithmic and price <= 0):
            continue
        points.append(
            {
                "method": name_of(row),
                "kind": row.get("kind"),
                "strength": finite(row.get("strength")),
                "effect": gain.value,
                "low": gain.low,
                "high": gain.high,
                "cost": price,
                "shown_effect": measured(row.get(effect)),
                "shown_cost": measured(row.get(cost), places),
            }
        )
    return points


def _dose_tooltip() -> list[alt.Tooltip]:
    return [
        alt.Tooltip("method:N"),
        alt.Tooltip("strength:N"),
        alt.Tooltip("shown_effect:N", title="effect"),
        alt.Tooltip("shown_cost:N", title="cost"),
    ]


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
    x = _layer_axis()
    percent = alt.Axis(format=".0%", tickCount=5)
    base = _on(points).encode(x=x)
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
        rule = _on([{"chance": chance, "label": f"chance {chance:.0%}"}]).encode(y="chance:Q")
        layers.append(rule.mark_rule(strokeDash=[4, 4], opacity=0.6))
        layers.append(rule.mark_text(align="right", dy=-8, opacity=0.8).encode(x=alt.value("width"), text="label:N"))
    chart = alt.layer(*layers).properties(width="container", height=240, autosize=_FIT_WIDTH)
    finished: alt.LayerChart = _finished(chart, "Probe accuracy by layer with interval and chance rate")
    return finished


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
    ticks = _log_ticks([point["size"] for point in (*points, *peaks)])
    domain = [*kinds.values(), *(["massive activation"] if peaks else [])]
    palette = [theme.METHOD_COLOURS[0], theme.METHOD_COLOURS[3], theme.NEUTRAL, theme.METHOD_COLOURS[1]]
    colour = alt.Color("kind:N", scale=alt.Scale(domain=domain, range=palette[: len(domain)]), legend=alt.Legend())
    y = alt.Y("size:Q", title=y_title, scale=alt.Scale(type="log", nice=True), axis=alt.Axis(values=ticks, format="~s"))
    tooltip = [alt.Tooltip("layer:Q"), alt.Tooltip("kind:N"), alt.Tooltip("shown:N", title="size")]
    base = _on(points).encode(x=_layer_axis(), y=y, color=colour)
    layers = [base.mark_line(strokeWidth=2).encode(tooltip=tooltip)]
    if peaks:
        marks = _on(peaks).encode(x=_layer_axis(), y=y)
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
    chart = alt.layer(*layers).properties(width="container", height=240, autosize=_FIT_WIDTH)
    finished: alt.LayerChart = _finished(chart, "Norm of the stream by layer on a log scale, with massive activations")
    return finished


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


def _layer_axis() -> alt.X:
    return alt.X(
        "layer:Q",
        title="layer",
        scale=alt.Scale(nice=False, padding=8),
        axis=alt.Axis(grid=False, tickMinStep=1, format="d"),
    )


def _gaps() -> alt.Scale:
    return alt.Scale(paddingInner=0.06)


def _zero(channel: str) -> alt.Chart:
    rule = _on([{"zero": 0}]).mark_rule(opacity=0.45)
    drawn: alt.Chart = rule.encode(x="zero:Q") if channel == "x" else rule.encode(y="zero:Q")
    return drawn


def _colour(result: Result, shown: list[str], *, legend: bool = False) -> alt.Color:
    chosen = theme.colours(result)
    scale = alt.Scale(domain=shown, range=[chosen.get(name, theme.NEUTRAL) for name in shown])
    return alt.Color("method:N", scale=scale, legend=alt.Legend() if legend else None)


def _shape(result: Result, shown: list[str], *, legend: bool = False) -> alt.Shape:
    chosen = theme.shapes(result)
    scale = alt.Scale(domain=shown, range=[chosen.get(name, "circle") for name in shown])
    return alt.Shape("method:N", scale=scale, legend=alt.Legend() if legend else None)


def _on(values: list[dict[str, Any]]) -> alt.Chart:
    return alt.Chart(_data(values))


def _data(values: list[dict[str, Any]]) -> alt.Data:
    return alt.Data(values=values)  # type: ignore[no-untyped-call]


def _finished(chart: Any, description: str) -> Any:
    return chart.properties(description=description).configure(**theme.CONFIG)
