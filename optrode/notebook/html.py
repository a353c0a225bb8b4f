"""HTML from plain pieces: what is not `Html` is escaped on its way in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from html import escape
from typing import Any, TypeVar

from .style import STYLE
from .text import cut, harmless

Thing = TypeVar("Thing")
# Lines of a list that are shown before it is cut.
MOST_LINES = 200
# Characters from which a text in a table takes several lines.
_LONG = 44


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def tag(name: str, *inside: Any, **attributes: Any) -> Html:
    """One element. A trailing underscore in a name goes, others become hyphens; attributes that are None are left out.

    >>> tag("p", "a < b", tag("b", "!"), class_="x", text_anchor="end")
    '<p class="x" text-anchor="end">a &lt; b<b>!</b></p>'
    """
    said = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(harmless(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{said}>{joined(*inside)}</{name}>")


def joined(*inside: Any) -> Html:
    return Html("".join(part if isinstance(part, Html) else escape(harmless(part)) for part in inside))


def safely(view: Callable[[Thing], Html]) -> Callable[[Thing], str]:
    """A view that never raises: where it fails the object's text takes its place, or the name of its class."""

    @wraps(view)
    def shown(thing: Thing) -> str:
        try:
            return whole(view(thing))
        except Exception:
            said = attempt(lambda: repr(thing), f"{type(thing).__name__} (it cannot be shown)")
            return whole(tag("pre", said[:20_000]))

    return shown


def attempt(what: Callable[[], Any], otherwise: Any = None) -> Any:
    """What a function gives; `otherwise` where it fails, so that one broken thing does not hide the others."""
    try:
        return what()
    except Exception:
        return otherwise


def whole(body: Html) -> str:
    """A body with the style that it needs."""
    return str(tag("div", Html(f"<style>{STYLE}</style>"), body, class_="optrode"))


def card(kind: str, title: Any, about: Sequence[Any], *parts: Any) -> Html:
    """The line that says what an object is, and its parts below it; parts that are None or empty are left out."""
    head = [tag("span", kind, class_="ot-kind"), " ", tag("b", title)]
    for said in about:
        if said:
            head += [" ", tag("span", said, class_="ot-about")]
    return joined(tag("div", *head, class_="ot-head"), *(part for part in parts if part))


def facts(entries: Mapping[str, Any]) -> Html:
    """Names and values, one below the other; empty values are left out."""
    lines = [tag("tr", tag("th", name), tag("td", value)) for name, value in entries.items() if value not in (None, "")]
    return tag("table", tag("tbody", *lines), class_="ot-facts") if lines else Html("")


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], right: Iterable[int] = ()) -> Html:
    """A table; the columns of `right` hold numbers. Beyond `MOST_LINES` rows it says how many more there are."""
    listed, to_right = list(rows), set(right)
    names = [tag("th", name, class_="ot-n" if place in to_right else None) for place, name in enumerate(head)]
    body = [
        tag("tr", *(tag("td", cell, class_=_kind(cell, place in to_right)) for place, cell in enumerate(row)))
        for row in listed[:MOST_LINES]
    ]
    if len(listed) > MOST_LINES:
        body.append(tag("tr", tag("td", quiet(f"and {len(listed) - MOST_LINES:,} more"), colspan=len(head))))
    made = tag("table", tag("thead", tag("tr", *names)), tag("tbody", *body), class_="ot-table")
    return tag("div", made, class_="ot-scroll")


def _kind(cell: Any, right: bool) -> str | None:
    """Numbers stand to the right, and only long texts take several lines."""
    if right:
        return "ot-n"
    return "ot-text" if not isinstance(cell, Html) and len(str(cell)) > _LONG else None


def fold(summary: Any, *inside: Any, about: Any = "", opened: bool = False) -> Html:
    """What is shown when it is asked for."""
    said = tag("summary", summary, *([" ", quiet(about)] if about else []))
    return tag("details", said, tag("div", *inside, class_="ot-in"), open_="" if opened else None)


def lines(items: Sequence[Any], most: int = MOST_LINES) -> Html:
    """A list of texts in fixed width, cut where it is long."""
    shown = [tag("div", code(cut(item))) for item in items[:most]]
    return joined(*shown, quiet(f"and {len(items) - most:,} more") if len(items) > most else "")


def notes(texts: Iterable[Any]) -> Html:
    """Remarks that should not be missed."""
    return joined(*(tag("div", cut(text, 400), class_="ot-note") for text in texts))


def quiet(said: Any) -> Html:
    return tag("span", said, class_="ot-quiet")


def code(said: Any) -> Html:
    return tag("code", said)


def warning(said: Any) -> Html:
    return tag("span", said, class_="ot-warn")
