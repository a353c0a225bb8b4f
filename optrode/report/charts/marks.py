"""What the charts share: axes, colours of methods, and data that travel inside the chart."""

from __future__ import annotations

import math
from typing import Any

import altair as alt

from optrode.report import theme

Result = dict[str, Any]
FIT_WIDTH = alt.AutoSizeParams(type="fit-x", contains="padding")


def log_ticks(values: list[float]) -> list[float]:
    """Few round values over the range: powers of ten, and multiples of them where the range is short."""
    low, high = math.log10(min(values)), math.log10(max(values))
    steps = (1, 1.5, 2, 3, 5, 7) if high - low < 1 else (1, 3) if high - low < 3 else (1,)
    ticks = [float(f"{step}e{power}") for power in range(math.floor(low), math.ceil(high) + 1) for step in steps]
    return [tick for tick in ticks if min(values) * 0.8 <= tick <= max(values) * 1.25] or [min(values), max(values)]


def layer_axis() -> alt.X:
    return alt.X(
        "layer:Q",
        title="layer",
        scale=alt.Scale(nice=False, padding=8),
        axis=alt.Axis(grid=False, tickMinStep=1, format="d"),
    )


def gaps() -> alt.Scale:
    return alt.Scale(paddingInner=0.06)


def zero(channel: str) -> alt.Chart:
    rule = chart_of([{"zero": 0}]).mark_rule(opacity=0.45)
    drawn: alt.Chart = rule.encode(x="zero:Q") if channel == "x" else rule.encode(y="zero:Q")
    return drawn


def colour_of(result: Result, shown: list[str], *, legend: bool = False) -> alt.Color:
    chosen = theme.colours(result)
    scale = alt.Scale(domain=shown, range=[chosen.get(name, theme.NEUTRAL) for name in shown])
    return alt.Color("method:N", scale=scale, legend=alt.Legend() if legend else None)


def shape_of(result: Result, shown: list[str], *, legend: bool = False) -> alt.Shape:
    chosen = theme.shapes(result)
    scale = alt.Scale(domain=shown, range=[chosen.get(name, "circle") for name in shown])
    return alt.Shape("method:N", scale=scale, legend=alt.Legend() if legend else None)


def chart_of(values: list[dict[str, Any]]) -> alt.Chart:
    return alt.Chart(inline(values))


def inline(values: list[dict[str, Any]]) -> alt.Data:
    return alt.Data(values=values)  # type: ignore[no-untyped-call]


def finished(chart: Any, description: str) -> Any:
    return chart.properties(description=description).configure(**theme.CONFIG)
