"""Effect against what it costs on neutral text, along strength."""

from __future__ import annotations

from typing import Any

import altair as alt

from optrode.report.charts.marks import FIT_WIDTH, Result, chart_of, colour_of, finished, log_ticks, shape_of, zero
from optrode.report.result import budget, finite, finite_interval, name_of, names, records
from optrode.report.text import measured


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
        "color": colour_of(result, shown, legend=True),
        "opacity": alt.condition(picked, alt.value(1.0), alt.value(0.12)),
    }
    base = chart_of(steps).encode(**encoding)
    lines = base.mark_line(strokeWidth=2, strokeJoin="round").encode(order=alt.Order("strength:Q"))
    intervals = base.mark_rule(strokeWidth=1).encode(
        y=alt.Y("low:Q", title=effect_title),
        y2="high:Q",
        opacity=alt.condition(picked, alt.value(0.4), alt.value(0.06)),
    )
    shape = shape_of(result, shown, legend=True)
    points = base.mark_point(filled=True, size=46).encode(shape=shape, tooltip=_dose_tooltip()).add_params(picked)
    layers = [zero("y"), intervals, lines, points]
    if baselines:
        # Prompting and its like have no strength: a point, and a line at its height to compare the curves with.
        level = chart_of(baselines).encode(**encoding)
        layers.append(level.mark_rule(strokeDash=[2, 3], strokeWidth=1.25).encode(x2=alt.value("width")))
        layers.append(level.mark_point(filled=True, size=90).encode(shape=shape, tooltip=_dose_tooltip()))
    limit = budget(result)
    if cost == "perplexity_ratio" and limit is not None:
        rule = chart_of([{"limit": limit, "label": "budget"}]).encode(x="limit:Q")
        layers.append(rule.mark_rule(strokeDash=[4, 4], opacity=0.6))
        layers.append(rule.mark_text(align="left", dx=5, dy=2, baseline="top", y=0, opacity=0.8).encode(text="label:N"))
    chart = alt.layer(*layers).properties(width="container", height=320, autosize=FIT_WIDTH)
    done: alt.LayerChart = finished(chart, f"{effect_title} against {title}, one line per method")
    return done


def _cost_axis(costs: list[float], title: str, *, logarithmic: bool) -> alt.X:
    if not logarithmic:
        return alt.X(
            "cost:Q",
            title=title,
            scale=alt.Scale(zero=False, padding=10),
            axis=alt.Axis(tickCount=5, labelOverlap=True),
        )
    axis = alt.Axis(values=log_ticks(costs), labelOverlap=True, format="~g")
    return alt.X("cost:Q", title=title, scale=alt.Scale(type="log", nice=False, padding=10), axis=axis)


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
