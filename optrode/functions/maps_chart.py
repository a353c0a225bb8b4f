"""The picture of variance, correlation and slope by layer: theory as lines, measured networks as dots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .chart import COLOURS, FONT, GREY

if TYPE_CHECKING:
    import altair

    from .gains import Signal
    from .real_networks import Measured

LINE, DOT = COLOURS.values()
# What is drawn on a logarithmic axis where it spans more than this factor.
WIDE = 30.0


def plot(theory: Signal, measured: Measured | None = None) -> altair.Chart:
    """One panel each for variance, correlation and slope; dots have bars of two standard errors."""
    import altair

    panels = [_panel(altair, name, theory, measured) for name in ("variance", "correlation", "slope")]
    made = altair.hconcat(*panels, spacing=24)
    return made.configure(background="transparent", font=FONT).configure_view(stroke=None)


def rows(name: str, theory: Signal, measured: Measured | None) -> list[dict[str, Any]]:
    """One row for each layer: theory and, where there is one, mean, low and high of the measured networks."""
    found = [{"layer": layer, "theory": value} for layer, value in enumerate(getattr(theory, name))]
    if measured is not None:
        pairs = zip(getattr(measured.mean, name), getattr(measured.error, name), strict=True)
        for row, (mean, error) in zip(found, pairs, strict=True):
            row |= {"network": mean, "low": mean - 2 * error, "high": mean + 2 * error}
    return found


def _panel(altair: Any, name: str, theory: Signal, measured: Measured | None) -> Any:
    values = rows(name, theory, measured)
    numbers = [row[key] for row in values for key in ("theory", "network", "low") if key in row]
    steep = name == "variance" and min(numbers) > 0 and max(numbers) > WIDE * min(numbers)
    axis = altair.Axis(gridOpacity=0.15, domain=False, ticks=False, labelColor=GREY, title=None)
    y = altair.Y("theory:Q", axis=axis, scale=altair.Scale(type="log" if steep else "linear", zero=False))
    x = altair.X(
        "layer:Q", axis=altair.Axis(**{**axis.to_dict(), "title": "layer", "titleColor": GREY, "tickMinStep": 1})
    )
    base = altair.Chart(altair.Data(values=values)).encode(x=x)
    drawn = base.mark_line(color=LINE, strokeWidth=1.8).encode(y=y)
    if measured is not None:
        drawn += base.mark_rule(color=DOT, strokeWidth=1.2).encode(y=altair.Y("low:Q"), y2="high:Q")
        drawn += base.mark_circle(color=DOT, size=34, opacity=1).encode(y=altair.Y("network:Q"))
    said = f"line: theory; dots: {measured.networks} networks of {measured.width}" if measured is not None else "theory"
    title = altair.Title(name, subtitle=said, anchor="start", fontSize=13, subtitleFontSize=10.5, color=GREY,
                         subtitleColor=GREY, offset=8)  # fmt: skip
    return drawn.properties(width=240, height=200, title=title)
