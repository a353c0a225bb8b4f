"""The picture of a map: a heat map whose middle colour is "nothing happened", with what each cell is on hovering."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import altair
    import pandas as pd

    from . import Map

# From below to above nothing; blind to no common colour blindness.
COLOURS = ("#a84300", "#e08a3c", "#f3f1ec", "#6f9be8", "#2347b5")
# Beyond this many entries an axis is no picture any more.
MOST = 200
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def chart(found: Map, wide: int) -> altair.Chart:
    """See `Map.plot`."""
    import altair

    names = list(found.labels)
    frame, note = _frame(found, wide)
    title = found.unit or "value"
    if found.base is not None:
        title = title if title.startswith(("change", "share")) else f"change of {title}"
    data = altair.Data(values=frame.to_dict("records"))
    if len(names) == 1:
        made = _line(altair, data, found, title)
    else:
        made = _heat(altair, data, frame, names[-2:], title)
        if len(names) > 2:
            panels = list(dict.fromkeys(frame["panel"]))
            header = altair.Header(title=None, labelFontSize=12, labelAnchor="start", labelFontWeight="bold")
            facet = altair.Facet("panel:N", sort=panels, header=header)
            made = made.facet(facet=facet, columns=2 if len(found.labels[names[-1]]) <= 16 else 1, spacing=24)
    if note:
        made = made.properties(title=altair.Title(note, fontSize=11, fontWeight="normal", anchor="start"))
    return _dressed(made)


def _frame(found: Map, wide: int) -> tuple[pd.DataFrame, str]:
    """One row for each cell that is drawn, with `shown`, the number that the colour stands for."""
    names = list(found.labels)
    frame = found.to_pandas()
    frame["shown"] = frame["change"] if "change" in frame else frame["value"]
    notes = []
    for name in names:
        count = len(found.labels[name])
        if count > MOST and len(names) > 1:
            largest = frame.groupby(name, sort=False)["shown"].apply(lambda part: part.abs().max())
            kept = set(largest.sort_values(ascending=False).index[:wide])
            frame = frame[frame[name].isin(kept)]
            notes.append(f"the {wide} of {count} {name}s with the largest values")
    for name in names:
        frame[name] = frame[name].map(str)
    if len(names) > 2:
        outer = names[:-2]
        frame["panel"] = frame[outer].agg(lambda row: ", ".join(f"{n} {v}" for n, v in zip(outer, row, strict=True)), 1)
    frame = frame.astype({"value": float, "shown": float})
    # Cells that a network does not have are left out.
    return frame[np.isfinite(frame["shown"])], "; ".join(notes)


def _line(altair: Any, data: Any, found: Map, title: str) -> Any:
    (name,) = found.labels
    order = [str(label) for label in found.labels[name]]
    return (
        altair.Chart(data)
        .mark_line(point=True, color=COLOURS[-1])
        .encode(
            x=altair.X(f"{name}:O", sort=order, axis=_axis(altair, name, order)),
            y=altair.Y("shown:Q", title=title),
            tooltip=_tooltip(altair, [name], title),
        )
        .properties(width=max(160, min(900, 22 * len(order))), height=220)
    )


def _heat(altair: Any, data: Any, frame: pd.DataFrame, names: list[str], title: str) -> Any:
    down, across = names
    rows, columns = (list(dict.fromkeys(frame[name])) for name in (down, across))
    most = float(frame["shown"].abs().max()) if len(frame) else 1.0
    most = most or 1.0
    scale = altair.Scale(
        domain=[-most, -most / 3, 0, most / 3, most], range=list(COLOURS), clamp=True, interpolate="rgb"
    )
    legend = altair.Legend(title=title, orient="top", gradientLength=220, gradientThickness=10, titleLimit=400)
    return (
        altair.Chart(data)
        .mark_rect(stroke="white", strokeWidth=0.5)
        .encode(
            x=altair.X(f"{across}:O", sort=columns, axis=_axis(altair, across, columns)),
            # The stream flows upwards.
            y=altair.Y(f"{down}:O", sort=rows[::-1], axis=altair.Axis(title=down, labelLimit=220)),
            color=altair.Color("shown:Q", scale=scale, legend=legend),
            tooltip=_tooltip(altair, [name for name in frame.columns if name in (*names, "panel")], title),
        )
        .properties(width={"step": _step(len(columns), 34, 900)}, height={"step": _step(len(rows), 17, 640)})
    )


def _axis(altair: Any, name: str, labels: list[str]) -> Any:
    long = max(map(len, labels), default=0) > 3
    return altair.Axis(title=name, labelAngle=-50 if long else 0, labelLimit=140, labelOverlap=not long)


def _tooltip(altair: Any, names: list[str], title: str) -> list[Any]:
    fields = [altair.Tooltip(f"{name}:N", title=name if name != "panel" else "of") for name in names]
    value = altair.Tooltip("value:Q", format=".4~g", title="value")
    return [*fields, value, altair.Tooltip("shown:Q", format="+.4~g", title=title)]


def _step(count: int, best: int, room: int) -> int:
    """Size of a cell: the best one where there is room, never too small to see."""
    return max(4, min(best, room // max(1, count)))


def _dressed(made: Any) -> Any:
    quiet = {"domain": False, "ticks": False, "labelFontSize": 11, "titleFontSize": 12, "titleFontWeight": "normal"}
    return (
        made.configure(font=FONT)
        .configure_axis(**quiet, titlePadding=8, labelPadding=5)
        .configure_view(stroke=None)
        .configure_legend(titleFontWeight="normal", titleFontSize=12, labelFontSize=11)
    )
