"""Charts of a comparison of activation functions: scores with their intervals, and losses along training."""

from __future__ import annotations

from typing import Any

from optrode.report.foreign import harmless
from optrode.report.result import finite, finite_interval, mapping, records
from optrode.report.theme import CONFIG, METHOD_COLOURS, NEUTRAL

LINES_SHOWN = 5


def scores(result: dict[str, Any]) -> Any:
    """One line a function: every seed, the mean and its interval."""
    import altair as alt

    rows, measure = records(result, "rows"), harmless(mapping(result, "task").get("measure")) or "score"
    if not rows:
        return None
    names = [harmless(row.get("function")) for row in rows]
    means = [
        {"function": name, **finite_interval(row.get("score"))._asdict()} for name, row in zip(names, rows, strict=True)
    ]
    seeds = [
        {"function": name, "seed": finite(score)}
        for name, row in zip(names, rows, strict=True)
        for score in row.get("scores") or []
    ]
    y = alt.Y("function:N", sort=names, title=None)
    scale = alt.Scale(zero=False, nice=True)
    dots = alt.Chart(alt.Data(values=seeds)).mark_circle(size=34, color=NEUTRAL, opacity=0.9).encode(
        x=alt.X("seed:Q", title=measure, scale=scale, axis=alt.Axis(tickCount=8)), y=y
    )  # fmt: skip
    base = alt.Chart(alt.Data(values=means)).encode(y=y)
    rule = base.mark_rule(size=2, color=METHOD_COLOURS[0], opacity=0.55).encode(
        x=alt.X("low:Q", scale=scale), x2="high:Q"
    )
    point = base.mark_point(size=70, filled=True, color=METHOD_COLOURS[0], opacity=1).encode(
        x=alt.X("value:Q", scale=scale),
        tooltip=[alt.Tooltip(f"{name}:N" if name == "function" else f"{name}:Q") for name in ("function", "value")],
    )
    chart = (rule + dots + point).properties(width="container", height=24 * len(names))
    return chart.configure(**CONFIG)


def losses(result: dict[str, Any]) -> Any:
    """Loss of the first seed along training, of the first few functions."""
    import altair as alt

    rows, steps = records(result, "rows")[:LINES_SHOWN], mapping(result, "protocol").get("steps") or 1
    points = [
        {"function": harmless(row.get("function")), "step": steps * number / max(1, len(row["curve"])), "loss": loss}
        for row in rows
        for number, loss in enumerate(row.get("curve") or [])
    ]
    if not points:
        return None
    names = [harmless(row.get("function")) for row in rows]
    positive = all(isinstance(point["loss"], int | float) and point["loss"] > 0 for point in points)
    scale = alt.Scale(type="log") if positive else alt.Scale(zero=False)
    chart = alt.Chart(alt.Data(values=points)).mark_line(strokeWidth=2).encode(
        x=alt.X("step:Q", title="step", axis=alt.Axis(tickCount=6)),
        y=alt.Y("loss:Q", title="loss of the batch", scale=scale, axis=alt.Axis(tickCount=5)),
        color=alt.Color("function:N", sort=names, scale=alt.Scale(domain=names, range=list(METHOD_COLOURS))),
    )  # fmt: skip
    return chart.properties(width="container", height=260).configure(**CONFIG)
