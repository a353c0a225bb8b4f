"""A reader of HTML that is as strict as a browser is lenient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser

import pytest

HOSTILE = '</style></td><script>window.broken=1</script><img src=x onerror=alert(1)>\'" onload="&amp;\x1b[31m\u202e'
# Nothing that runs, asks the network, or leaves its place.
_TAGS = frozenset(
    [
        "div",
        "span",
        "b",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "details",
        "summary",
        "code",
        "pre",
        "figure",
        "figcaption",
        "style",
        "progress",
        "svg",
        "g",
        "rect",
        "line",
        "circle",
        "text",
        "title",
    ]
)


class Page(HTMLParser):
    """What a piece of HTML holds: its tags, its attributes, its text. Raises where tags are not closed in order."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, f"left open: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(name, value or "") for name, value in attrs]
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1:] != ["style"]:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


@pytest.fixture
def hostile() -> str:
    return HOSTILE


@pytest.fixture
def read_page() -> Callable[[str], Page]:
    """The page of a card, once it is known to be well-formed and harmless."""

    def read(text: str) -> Page:
        page = Page(text)
        assert set(page.tags) <= _TAGS, set(page.tags) - _TAGS
        assert not [name for name, _ in page.attributes if name.startswith("on") or name in ("src", "href", "style")]
        assert "\x1b" not in text and "\u202e" not in text
        assert page.tags["style"] == 1
        return page

    return read
