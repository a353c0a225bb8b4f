"""Pictures of functions: each with its derivative, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ..errors import BadInput
from .of_formula import FormulaFunction
from .protocol import Function
from .zoo import get

if TYPE_CHECKING:
    import altair

# Legible on white and on near-black, and apart for colour-blind readers.
COLOURS = {"f(x)": "#4a70e6", "df/dx": "#df7a0a"}
GREY = "#868c94"
POINTS = 241
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def plot(
    *functions: str | Function, low: float = -5.0, high: float = 5.0, columns: int = 3, size: int = 200
) -> altair.Chart:
    """Functions and their derivatives from `low` to `high`, one panel each; surrogates show what the backward takes.

    `size` is the height of a panel in pixels; values beyond 6 are cut off. `chart.save("x.svg")` writes a file. Raises
    `BadInput` for functions that mix elements, which have no curve, and `UnknownName`.
    """
    import altair

    if not functions:
        raise BadInput("no function was given to plot: name at least one, such as golu")
    if not low < high:
        raise BadInput(f"there is nothing between {low:g} and {high:g}: give the smaller end first")
    panels = [_panel(altair, _curve_of(one), low, high, size) for one in functions]
    made = altair.concat(*panels, columns=min(columns, len(panels)), spacing=26)
    return made.configure(background="transparent", font=FONT).configure_view(stroke=None)


def _curve_of(function: str | Function) -> FormulaFunction:
    found = get(function) if isinstance(function, str) else function
    if not isinstance(found, FormulaFunction):
        raise BadInput(f"{found.name} mixes elements, so it has no curve: {found.formula}")
    return found


def curve(function: FormulaFunction, low: float, high: float, points: int = POINTS) -> list[dict[str, Any]]:
    """Points of the function and of its derivative, with breaks where there is no number or a jump.

    Values beyond 6 are left out.
    """
    x = torch.linspace(low, high, points, dtype=torch.float64)
    found = []
    for line, y in (("f(x)", function(x)), ("df/dx", function.derivative(x))):
        jumps = function.row.jumps and line == "f(x)"
        steps = torch.cat([torch.zeros(1, dtype=y.dtype), y.diff().abs()])
        # A jump is a step much larger than its neighbours.
        broken = (steps > 0.2) & (steps > 5 * steps.roll(1)) & (steps > 5 * steps.roll(-1)) if jumps else steps < -1
        for place, (a, b) in enumerate(zip(x.tolist(), y.tolist(), strict=True)):
            there = abs(b) <= 6 and not bool(broken[place])
            found.append({"x": a, "y": b if there else None, "line": line})
    return found


def _panel(altair: Any, function: FormulaFunction, low: float, high: float, size: int) -> Any:
    data = altair.Data(values=curve(function, low, high))
    values = [row["y"] for row in data.values if row["y"] is not None] or [0.0]
    bottom, top = min([-1.0, *values]), max([1.0, *values])
    axis = altair.Axis(grid=True, gridOpacity=0.15, domain=False, ticks=False, labelColor=GREY, title=None)
    lines = (
        altair.Chart(data)
        .mark_line(strokeWidth=1.6, clip=True)
        .encode(
            x=altair.X("x:Q", axis=axis, scale=altair.Scale(domain=[low, high], nice=False)),
            y=altair.Y("y:Q", axis=axis, scale=altair.Scale(domain=[bottom, top], nice=False)),
            color=altair.Color(
                "line:N", scale=altair.Scale(domain=list(COLOURS), range=list(COLOURS.values())),
                legend=altair.Legend(orient="top", title=None, labelColor=GREY),
            ),
            strokeDash=altair.StrokeDash(
                "line:N", scale=altair.Scale(domain=list(COLOURS), range=[[1, 0], [4, 2]]), legend=None
            ),
        )
    )  # fmt: skip
    zero = altair.Chart(altair.Data(values=[{"zero": 0}]))
    rule = {"strokeWidth": 0.8, "color": GREY, "opacity": 0.7}
    crossed = zero.mark_rule(**rule).encode(x="zero:Q") + zero.mark_rule(**rule).encode(y="zero:Q")
    title = altair.Title(
        _short(function.name, 26), subtitle=[_short(function.formula, 48)], anchor="start", fontSize=13,
        subtitleFontSize=10.5, color=GREY, subtitleColor=GREY, offset=8,
    )  # fmt: skip
    return (crossed + lines).properties(width=round(1.35 * size), height=size, title=title)


def _short(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"
