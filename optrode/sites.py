"""Addresses of activations: parse once, match many.

An address names an activation by what it is, not by the module that happens to hold it: `layers.15.out` is the stream
after block 15 on every architecture. A pattern selects several addresses:

| pattern | selects |
|---|---|
| `layers.*.out` | every block |
| `layers.3-7.out`, `layers.20-.out` | an inclusive range, an open one |
| `layers.{1,4}.out`, `layers.2.{attn.heads,mlp.out}` | alternatives, as in a shell |
| `layers.-1.out` | counted from the end |
| `vision.layers.*.out`, `*.layers.0.out` | one tower, or every tower, of a network of several |
| `module:encoder.block.2`, `module:features.*:in` | any module's output or first input, by the model's own path |
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from .errors import UnknownSite, did_you_mean

_SEGMENT = re.compile(r"[A-Za-z0-9_*?\-]+")
_BRACES = re.compile(r"\{([^{}]*)\}")
# Longer numbers are no layer of any network, and python refuses to read very long ones.
_INDEX = r"[0-9]{1,9}"
_MOST_SPELLINGS = 10_000


@dataclass(frozen=True)
class SitePattern:
    """A parsed pattern: an immutable recipe that is matched against the addresses of any model.

    `alternatives` holds the segments of each brace-free spelling.
    """

    text: str
    alternatives: tuple[tuple[str, ...], ...]
    raw: bool

    def matches(self, address: str, layers: int) -> bool:
        """Whether `address` is selected in a model with `layers` blocks."""
        if self.raw or address.startswith("module:"):
            return self.raw and fnmatch.fnmatchcase(address, self.text)
        parts = address.split(".")
        return any(_fits(segments, parts, layers) for segments in self.alternatives)


@lru_cache(maxsize=4096)
def parse(text: str) -> SitePattern:
    """Parse an address or pattern.

    Raises `UnknownSite` when the text is no address at all (empty part, stray sign).

    >>> parse("layers.3-7.out").matches("layers.5.out", layers=12)
    True
    >>> parse("layers.-1.{attn.heads,mlp.*}").matches("layers.11.mlp.hidden", layers=12)
    True
    """
    text = text.strip()
    if text.startswith("module:"):
        return SitePattern(text, (), raw=True)
    segmented = [tuple(spelling.split(".")) for spelling in spellings(text)]
    if not all(_SEGMENT.fullmatch(segment) for segments in segmented for segment in segments):
        raise UnknownSite(f"{text!r} is no site address: write one like layers.15.out, layers.*.mlp.out or module:PATH")
    return SitePattern(text, tuple(segmented), raw=False)


def select(patterns: str | Iterable[str], addresses: Sequence[str], layers: int | Mapping[str, int]) -> list[str]:
    """The addresses that any of `patterns` selects, in the order of `addresses`.

    `layers` is the number of blocks; of several towers, that of each by prefix ("" for blocks without one). Raises
    `UnknownSite` naming the nearest addresses when a pattern selects none.

    >>> select("layers.*.out", ["embed", "layers.0.out", "layers.1.out"], 2)
    ['layers.0.out', 'layers.1.out']
    """
    texts = [patterns] if isinstance(patterns, str) else list(patterns)
    if not texts:
        raise UnknownSite("no site was asked for: name one like layers.15.out or layers.*.out")
    counts = layers if isinstance(layers, Mapping) else {"": layers}
    chosen: set[str] = set()
    for text in texts:
        pattern = parse(text)
        found = [address for address in addresses if pattern.matches(address, counts.get(tower_of(address), 0))]
        if not found:
            raise UnknownSite(f"site {text!r} is not in this model: {_hint(text.strip(), addresses, counts)}")
        chosen.update(found)
    return [address for address in addresses if address in chosen]


def tower_of(address: str) -> str:
    """The prefix of a tower that an address begins with; "" where there is none or it is outside the blocks.

    >>> tower_of("vision.layers.3.out"), tower_of("layers.3.out")
    ('vision', '')
    """
    before, found, _ = address.partition("layers.")
    return before.removesuffix(".") if found else ""


def _hint(text: str, addresses: Sequence[str], layers: Mapping[str, int]) -> str:
    tower, index = tower_of(text), re.match(rf"(?:\w+\.)?layers\.(-?{_INDEX})\.", text)
    count = layers.get(tower, 0)
    if index and count and not -count <= int(index[1]) < count:
        return f"{tower or 'it'} has layers 0 to {count - 1}"
    # A tower, and a layer that it has, were meant: only the part after them can be misspelt.
    stem = f"{tower}." if tower else ""
    own = [
        address
        for address in addresses
        if count and index and address.startswith(f"{stem}layers.{int(index[1]) % count}.")
    ]
    return did_you_mean(text, own or addresses)


def spellings(text: str) -> list[str]:
    """Every spelling that the braces stand for: `a.{b,c}` is `a.b` and `a.c`."""
    found = [text]
    # Innermost braces go first, and all spellings have the same ones left, so that looking at one tells when to end.
    while _BRACES.search(found[0]):
        found = list(dict.fromkeys(choice for spelling in found for choice in _choices(spelling)))
        if len(found) > _MOST_SPELLINGS:
            raise UnknownSite(f"a site with over {_MOST_SPELLINGS} spellings is too much: use * or a range")
    return found


def _choices(text: str) -> list[str]:
    braces = _BRACES.search(text)
    assert braces is not None
    before, after = text[: braces.start()], text[braces.end() :]
    return [before + choice.strip() + after for choice in braces[1].split(",")]


def _fits(segments: tuple[str, ...], parts: Sequence[str], layers: int) -> bool:
    return len(segments) == len(parts) and all(
        _accepts(segment, part, layers) for segment, part in zip(segments, parts, strict=True)
    )


def _accepts(segment: str, part: str, layers: int) -> bool:
    if not part.isdigit():
        return fnmatch.fnmatchcase(part, segment)
    index = int(part)
    if re.fullmatch(f"-?{_INDEX}", segment):
        wanted = int(segment)
        return index == (wanted + layers if wanted < 0 else wanted)
    span = re.fullmatch(f"({_INDEX})-({_INDEX})?", segment)
    if span:
        return int(span[1]) <= index <= (int(span[2]) if span[2] else layers - 1)
    return fnmatch.fnmatchcase(part, segment)
