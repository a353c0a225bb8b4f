"""Small pictures in SVG: what a mark stands for is said on hovering, without a script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from .html import Html, joined, tag
from .style import ACCENT
from .text import number

INK = "currentColor"
# From below to above nothing, as in the reports: red, green, blue and how much of it covers the ground.
_STOPS = (
    (-1.0, (196, 86, 12, 1.0)), (-1 / 3, (214, 132, 60, 0.75)), (0.0, (134, 140, 148, 0.10)),
    (1 / 3, (80, 126, 220, 0.75)), (1.0, (46, 84, 206, 1.0)),
)  # fmt: skip
# Largest over least value from which bars are drawn on a logarithmic scale.
_WIDE = 30.0


def svg(width: float, height: float, *inside: Any, says: str = "") -> Html:
    return tag(
        "svg", *inside, xmlns="http://www.w3.org/2000/svg", width=_short(width), height=_short(height),
        viewBox=f"0 0 {_short(width)} {_short(height)}", role="img", aria_label=says or None,
    )  # fmt: skip


def strip(states: Sequence[tuple[str, str]], says: str) -> Html:
    """A row of cells, one for each layer. A state is `run`, `skipped` or `edited`, with a text for hovering."""
    step = max(4.0, min(13.0, 620 / max(1, len(states))))
    cells = []
    for place, (state, told) in enumerate(states):
        look: dict[str, Any] = {"fill": INK, "fill_opacity": 0.38}
        if state == "edited":
            look = {"fill": ACCENT}
        elif state == "skipped":
            look = {"fill": "none", "stroke": INK, "stroke_opacity": 0.35}
        cells.append(
            tag("rect", tag("title", told), x=_short(place * step + 0.5), y=0.5, width=_short(step - 2.5), height=13,
                rx=1.5, **look)
        )  # fmt: skip
    return svg(step * len(states), 14, *cells, says=says)


def bars(values: Sequence[float | None], told: Sequence[str], says: str = "") -> Html:
    """Sizes side by side, one bar each; on a logarithmic scale where they lie far apart. None leaves a gap."""
    known = [value for value in values if value is not None and math.isfinite(value) and value > 0]
    step, tall = max(2.0, min(6.0, 180 / max(1, len(values)))), 24.0
    low, high = min(known, default=1.0), max(known, default=1.0)
    logarithmic = is_wide(values)
    drawn = []
    for place, (value, text) in enumerate(zip(values, told, strict=True)):
        if value is None or not math.isfinite(value):
            continue
        share = value / high if high else 0.0
        if logarithmic:
            share = 0.08 + 0.92 * math.log(value / low) / math.log(high / low) if value > 0 else 0.0
        height = max(1.0, tall * min(1.0, share))
        drawn.append(
            tag("rect", tag("title", text), x=_short(place * step), y=_short(tall - height), width=_short(step - 1),
                height=_short(height), fill=ACCENT)
        )  # fmt: skip
    return svg(step * len(values), tall, *drawn, says=says)


def is_wide(values: Sequence[float | None]) -> bool:
    """Whether `bars` takes a logarithmic scale."""
    known = [value for value in values if value is not None and math.isfinite(value) and value > 0]
    return bool(known) and max(known) > _WIDE * min(known)


def meter(share: float, told: str) -> Html:
    """How much of a whole: a bar of at most 72."""
    filled = 72 * max(0.0, min(1.0, share))
    return svg(
        72, 8, tag("rect", x=0, y=1, width=72, height=6, rx=3, fill=INK, fill_opacity=0.1),
        tag("rect", tag("title", told), x=0, y=1, width=_short(filled), height=6, rx=3, fill=ACCENT), says=told,
    )  # fmt: skip


def interval(value: float, low: float, high: float, span: tuple[float, float], told: str) -> Html:
    """A value with its interval on the scale of `span`, with a line where nothing happens."""
    wide, least, most = 150.0, *span

    def at(place: float) -> float:
        return 5 + (wide - 10) * (min(max(place, least), most) - least) / ((most - least) or 1.0)

    marks = []
    if least <= 0 <= most:
        marks.append(tag("line", x1=_short(at(0)), x2=_short(at(0)), y1=0, y2=14, stroke=INK, stroke_opacity=0.3))
    marks.append(
        tag(
            "line",
            x1=_short(at(low)),
            x2=_short(at(high)),
            y1=7,
            y2=7,
            stroke=ACCENT,
            stroke_width=2,
            stroke_opacity=0.6,
        )
    )
    marks.append(tag("circle", tag("title", told), cx=_short(at(value)), cy=7, r=3.5, fill=ACCENT))
    return svg(wide, 14, *marks, says=told)


def heat_map(
    values: Sequence[Sequence[float]], down: tuple[str, Sequence[str]], across: tuple[str, Sequence[str]], most: float,
    told: Sequence[Sequence[str]] | None = None,
) -> Html:  # fmt: skip
    """A heat map whose middle colour lets the page through. Rows run from below, as the stream flows upwards.

    `down` and `across`: the name of an axis and its labels. `most`: the value of the strongest colour. `told`: what
    cells say on hovering. Cells that are no number are left out.
    """
    rows, columns = down[1], across[1]
    wide = float(max(4, min(24, 640 // max(1, len(columns)))))
    tall = float(max(4, min(15, 460 // max(1, len(rows)))))
    left = 22 + min(130, 6.2 * max(map(len, rows), default=0))
    slanted = max(map(len, columns), default=0) > max(2, wide // 7)
    below = 20 + _room(columns, slanted)
    width, height = wide * len(columns), tall * len(rows)
    drawn = []
    for row, line in enumerate(values):
        cells = []
        for column, value in enumerate(line):
            if math.isfinite(value):
                said = tag("title", told[row][column]) if told else ""
                fill = _rgba(*shade(value / most if most else 0.0))
                size = {"width": _short(wide - 0.5), "height": _short(tall - 0.5)}
                cells.append(tag("rect", said, x=_short(column * wide), **size, fill=fill))
        drawn.append(tag("g", *cells, transform=f"translate(0,{_short(height - (row + 1) * tall)})"))
    frame = tag("rect", x=-1, y=-1, width=_short(width + 1.5), height=_short(height + 1.5), fill="none", stroke=INK,
                stroke_opacity=0.18)  # fmt: skip
    at = f"translate({_short(left)},2)"
    inside = tag(
        "g", frame, *drawn, _rows(down, tall, height, left), _columns(across, wide, height, slanted), transform=at
    )
    return svg(
        left + width + _overhang(columns, slanted) + 4,
        height + below + 4,
        inside,
        says=f"heat map of {down[0]} by {across[0]}",
    )


def _rows(axis: tuple[str, Sequence[str]], tall: float, height: float, left: float) -> Html:
    name, labels = axis
    every = max(1, math.ceil(12 / tall))
    said = [
        tag("text", _cut(label, 20), x=-6, y=_short(height - (row + 0.5) * tall + 3.8), text_anchor="end")
        for row, label in enumerate(labels)
        if row % every == 0
    ]
    turned = f"translate({_short(11 - left)},{_short(height / 2)}) rotate(-90)"
    return joined(*said, tag("text", name, transform=turned, text_anchor="middle"))


def _columns(axis: tuple[str, Sequence[str]], wide: float, height: float, slanted: bool) -> Html:
    name, labels = axis
    longest = max(map(len, labels), default=0)
    every = max(1, math.ceil((15 if slanted else 7.0 * longest + 4) / wide))
    said = []
    for column, label in enumerate(labels):
        if column % every:
            continue
        x, y = _short((column + 0.5) * wide), _short(height + 13)
        turned = f"rotate(40 {x} {y})" if slanted else None
        said.append(
            tag("text", _cut(label, 22), x=x, y=y, text_anchor="start" if slanted else "middle", transform=turned)
        )
    below = height + 14 + _room(labels, slanted)
    middle = _short(wide * len(labels) / 2)
    return joined(*said, tag("text", name, x=middle, y=_short(below + 2), text_anchor="middle"))


def _room(labels: Sequence[str], slanted: bool) -> float:
    """What labels below take."""
    return 8 + 4.2 * min(22, max(map(len, labels), default=0)) if slanted else 12


def _overhang(labels: Sequence[str], slanted: bool) -> float:
    """How far the last label reaches beyond its column."""
    return 5.0 * min(22, len(labels[-1])) if slanted and labels else 0.0


def legend(most: float, says: str) -> Html:
    """The colours of a heat map, from -most to most."""
    pieces = 44
    cells = [
        tag("rect", x=_short(place * 4), y=0, width=4.2, height=8, fill=colour, fill_opacity=_short(cover))
        for place in range(pieces)
        for colour, cover in [shade(2 * (place + 0.5) / pieces - 1)]
    ]
    wide = 4 * pieces
    texts = [
        tag("text", number(value), x=_short(x), y=20, text_anchor=anchor)
        for value, x, anchor in ((-most, 0, "start"), (0.0, wide / 2, "middle"), (most, wide, "end"))
    ]
    return svg(wide + 12 + 6.2 * len(says), 23, *cells, *texts, tag("text", says, x=wide + 12, y=8.5), says=says)


def columns(values: Sequence[float], labels: Sequence[str], told: Sequence[str], name: str) -> Html:
    """Values side by side, above and below a line at zero."""
    step, tall = max(4.0, min(24.0, 640 / max(1, len(values)))), 110.0
    known = [value for value in values if math.isfinite(value)]
    high, low = max([0.0, *known]), min([0.0, *known])
    scale = tall / ((high - low) or 1.0)
    zero = 4 + high * scale
    drawn = [
        tag(
            "line",
            x1=0,
            x2=_short(step * len(values)),
            y1=_short(zero),
            y2=_short(zero),
            stroke=INK,
            stroke_opacity=0.3,
        )
    ]
    for place, value in enumerate(values):
        if math.isfinite(value):
            top = zero - max(value, 0.0) * scale
            colour = shade(1.0 if value >= 0 else -1.0)[0]
            drawn.append(
                tag("rect", tag("title", told[place]), x=_short(place * step + 0.5), y=_short(top),
                    width=_short(step - 1.5), height=_short(max(0.5, abs(value) * scale)), fill=colour)
            )  # fmt: skip
    slanted = max(map(len, labels), default=0) > max(2, step // 7)
    below = 24 + _room(labels, slanted)
    axes = tag("g", *drawn, _columns((name, labels), step, tall + 4, slanted), transform="translate(8,0)")
    return svg(step * len(values) + 16 + _overhang(labels, slanted), tall + below + 4, axes, says=f"values by {name}")


def shade(share: float) -> tuple[str, float]:
    """The colour of a value as a share of the strongest, and how much of it covers the ground.

    >>> shade(1.0), shade(0.0)
    (('#2e54ce', 1.0), ('#868c94', 0.1))
    """
    share = max(-1.0, min(1.0, share))
    for (before, one), (after, other) in pairwise(_STOPS):
        if share <= after:
            way = (share - before) / (after - before)
            red, green, blue, cover = (a + (b - a) * way for a, b in zip(one, other, strict=True))
            return f"#{round(red):02x}{round(green):02x}{round(blue):02x}", round(cover, 3)
    raise AssertionError(share)


def _rgba(colour: str, cover: float) -> str:
    return f"{colour}{round(255 * cover):02x}"


def _cut(label: str, most: int) -> str:
    return label if len(label) <= most else label[: most - 1] + "…"


def _short(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
