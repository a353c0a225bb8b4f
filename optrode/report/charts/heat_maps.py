"""What a search over layers and strengths found, one panel per method."""

from __future__ import annotations

from typing import Any

import altair as alt

from optrode.report import theme
from optrode.report.charts.marks import Result, finished, gaps, inline
from optrode.report.result import budget, finite, finite_interval, name_of, names, over_budget, records
from optrode.report.text import measured


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
        x=alt.X("layer:O", title="layer", scale=gaps(), axis=alt.Axis(labelAngle=0, labelOverlap=True)),
        y=alt.Y("strength:O", title="strength", scale=gaps(), sort="descending"),
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
    chart = alt.layer(squares, crosses.encode(tooltip=tooltip), frames, data=inline(cells))
    facets = (
        chart.properties(width=228, height=height)
        .facet(facet=alt.Facet("method:N", sort=ranked, title=None), columns=3, spacing=28)
        .resolve_scale(y="independent")
    )
    done: alt.FacetChart = finished(facets, "Heat maps of log-odds shift by layer and strength, one per method")
    return done
