"""A map as a heat map of its last two axes, or as bars, with its largest entries in a fold."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .html import Html, attempt, card, facts, fold, joined, quiet, safely, table, tag
from .pictures import columns, heat_map, legend
from .text import cut, number

if TYPE_CHECKING:
    import numpy as np

# Entries of an axis beyond which those with the largest values are drawn alone, how many these are, and panels.
MOST, WIDE, PANELS = 120, 60, 6
# Cells of all panels together, and those up to which each says on hovering what it is.
CELLS, TOLD = 6000, 2000
_TOP = 8


@safely
def drawn(found: Any) -> Html:
    import numpy as np

    values = np.asarray(found.values, dtype=float)
    names = list(found.labels)
    change = found.base is not None
    shown = values - np.broadcast_to(np.asarray(found.base, dtype=float), values.shape) if change else values
    about = [" × ".join(f"{name} {count}" for name, count in zip(names, values.shape, strict=False)), found.unit]
    about += [
        f"{name} {_whole(value)}" for name, value in (("base", found.base), ("donor", found.donor)) if value is not None
    ]
    picture = attempt(lambda: _picture(found, values, shown, change), "")
    largest = attempt(lambda: _largest(found, values, shown, change))
    told = attempt(lambda: {name: cut(value, 200) for name, value in found.notes.items()}, {})
    made = fold("how it was made", facts(told)) if told else ""
    return card("Map", found.unit or "values", about[:1] + about[2:], picture, largest, made)


def _whole(value: Any) -> str:
    """A number, or the span of an array of them."""
    import numpy as np

    known = np.asarray(value, dtype=float)
    known = known[np.isfinite(known)]
    if not known.size:
        return "no number"
    low, high = float(known.min()), float(known.max())
    return number(low) if number(low) == number(high) else f"{number(low)} to {number(high)}"


def _picture(found: Any, values: np.ndarray, shown: np.ndarray, change: bool) -> Html:
    import numpy as np

    names = [cut(name, 30) for name in found.labels]
    labels = [[cut(label, 60) for label in own] for own in found.labels.values()]
    kept = [_kept(shown, axis) for axis in range(shown.ndim)]
    index = np.ix_(*kept)
    values, shown = values[index], shown[index]
    labels = [[own[place] for place in places] for own, places in zip(labels, kept, strict=True)]
    left_out = [
        f"the {len(places)} of {count} {name}s with the largest values"
        for name, places, count in zip(names, kept, found.values.shape, strict=True)
        if len(places) < count
    ]
    title = (
        f"change of {found.unit or 'the value'}"
        if change and not found.unit.startswith(("change", "share"))
        else found.unit
    )
    if shown.ndim == 1:
        return _bars(names[0], labels[0], values, shown, title, left_out)
    finite = np.abs(shown[np.isfinite(shown)])
    most = float(finite.max()) if finite.size and finite.max() else 1.0
    panels: list[Html] = []
    outer = list(itertools.product(*(range(count) for count in shown.shape[:-2])))
    size = max(1, shown.shape[-2] * shown.shape[-1])
    drawn = outer[: max(1, min(PANELS, CELLS // size))]
    for place in drawn:
        caption = ", ".join(f"{name} {own[at]}" for name, own, at in zip(names, labels, place, strict=False))
        tell = len(drawn) * size <= TOLD
        said = _said(names[-2:], labels[-2:], values[place], shown[place], change) if tell else None
        drawing = heat_map(shown[place].tolist(), (names[-2], labels[-2]), (names[-1], labels[-1]), most, said)
        panels.append(tag("figure", tag("figcaption", caption) if caption else "", drawing))
    if len(outer) > len(drawn):
        left_out.append(f"{len(drawn)} of {len(outer)} panels")
    colours = tag("figure", legend(most, cut(title or "value", 60)))
    rest = tag("div", quiet("shown: " + "; ".join(left_out))) if left_out else ""
    return joined(colours, tag("div", *panels, class_="ot-panels"), rest)


def _bars(
    name: str, labels: Sequence[str], values: np.ndarray, shown: np.ndarray, title: str, left_out: list[str]
) -> Html:
    told = [f"{name} {label}: {number(value)}" for label, value in zip(labels, values, strict=True)]
    drawing = columns(shown.tolist(), labels, told, name)
    caption = "; ".join([title, *left_out])
    return tag("figure", tag("figcaption", quiet(caption)), drawing)


def _said(
    names: Sequence[str], labels: Sequence[Sequence[str]], values: np.ndarray, shown: np.ndarray, change: bool
) -> list[list[str]]:
    """What each cell says on hovering."""
    found = []
    for row, down in enumerate(labels[0]):
        line = []
        for column, across in enumerate(labels[1]):
            text = f"{names[0]} {down}, {names[1]} {across}: {number(values[row, column])}"
            line.append(f"{text} (change {number(shown[row, column])})" if change else text)
        found.append(line)
    return found


def _kept(shown: np.ndarray, axis: int) -> list[int]:
    """The entries of an axis that are drawn, in order."""
    import numpy as np

    count = shown.shape[axis]
    if count <= MOST:
        return list(range(count))
    others = tuple(other for other in range(shown.ndim) if other != axis)
    sizes = np.nan_to_num(np.abs(shown)).max(axis=others)
    return sorted(np.argsort(-sizes, kind="stable")[:WIDE].tolist())


def _largest(found: Any, values: np.ndarray, shown: np.ndarray, change: bool) -> Html | None:
    import numpy as np

    names = list(found.labels)
    known = np.isfinite(shown)
    sizes = np.abs(np.where(known, shown, 0.0)).ravel()
    count = min(_TOP, int(known.sum()))
    if not count:
        return None
    first = np.argpartition(-sizes, count - 1)[:count]
    rows = []
    for flat in first[np.argsort(-sizes[first], kind="stable")].tolist():
        place = np.unravel_index(flat, shown.shape)
        own = [cut(found.labels[name][at], 60) for name, at in zip(names, place, strict=True)]
        rows.append((*own, number(values[place]), *([number(shown[place])] if change else [])))
    head = (*names, "value", *(["change"] if change else []))
    right = range(len(names), len(head))
    return fold("largest entries", table(head, rows, right=right), about=f"of {sizes.size:,}")
