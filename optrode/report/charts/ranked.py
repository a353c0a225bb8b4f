"""Methods in order of what they do, beside random directions."""

from __future__ import annotations

import altair as alt

from optrode.report import theme
from optrode.report.charts.marks import FIT_WIDTH, Result, chart_of, colour_of, finished, shape_of, zero
from optrode.report.result import finite, finite_interval, name_of, names, records, spread
from optrode.report.text import measured


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
    base = chart_of(rows).encode(y=y)
    points = base.mark_point(filled=True, size=95, opacity=1).encode(
        x=x, color=colour_of(result, order), shape=shape_of(result, order), tooltip=tooltip
    )
    intervals = (
        chart_of(bars)
        .encode(y=y)
        .mark_rule(strokeWidth=2.5, opacity=0.8, strokeCap="round")
        .encode(x=alt.X("low:Q", title=x_title), x2="high:Q", color=colour_of(result, order))
    )
    layers = [*_random_band(result, order), zero("x"), intervals, points]
    chart = alt.layer(*layers).properties(width="container", height=34 * len(order), autosize=FIT_WIDTH)
    done: alt.LayerChart = finished(chart, "Ranked dot plot of judged behaviour shift with intervals")
    return done


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
        band = chart_of([{"low": low, "high": high}]).mark_rect(color=theme.NEUTRAL, opacity=0.2)
        layers.append(band.encode(x="low:Q", x2="high:Q", tooltip=[alt.Tooltip("low:Q"), alt.Tooltip("high:Q")]))
    values = [
        {"method": row, "value": value} for item in random.get("values") or [] if (value := finite(item)) is not None
    ]
    if row in order and values:
        strip = chart_of(values).mark_tick(color=theme.NEUTRAL, thickness=1.5, size=16, opacity=0.8)
        layers.append(strip.encode(x="value:Q", y=alt.Y("method:N", sort=order, title=None)))
    return layers
