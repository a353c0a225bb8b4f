"""The packaged text format, and the few slots that a template may have.

A file is a list of sections. A section starts with `== kind | field | field` and holds one entry per line; lines that
start with `#` are comments. Entries that belong together are told apart by their first character: `+` shows a
behaviour, `-` opposes it, and in paired templates `>` marks the opposing twin of the line above.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from random import Random
from typing import TypeVar

Item = TypeVar("Item")

PRONOUNS = {"it": ("it", "was"), "they": ("them", "were"), "he": ("him", "was"), "she": ("her", "was")}


@dataclass(frozen=True)
class Section:
    """`== kind | field | ...` with the lines below it."""

    kind: str
    fields: tuple[str, ...]
    lines: tuple[str, ...]

    def marked(self, mark: str) -> tuple[str, ...]:
        """The lines that start with `mark`, without it."""
        return tuple(line[len(mark) :].strip() for line in self.lines if line.startswith(mark))

    def twins(self) -> tuple[tuple[str, str], ...]:
        """Pairs of lines: one without a mark and the `>` line that follows it."""
        shown, opposed = self.lines[::2], self.lines[1::2]
        if len(shown) != len(opposed) or not all(line.startswith(">") for line in opposed):
            raise ValueError(f"section {self.kind} | {' | '.join(self.fields)}: lines and their > twins must alternate")
        return tuple((line, twin[1:].strip()) for line, twin in zip(shown, opposed, strict=True))

    def columns(self) -> tuple[tuple[str, str], ...]:
        """Lines of the form `this / that` as pairs."""
        pairs = tuple(tuple(part.strip() for part in line.split(" / ")) for line in self.lines)
        if any(len(pair) != 2 for pair in pairs):
            raise ValueError(f"section {self.kind} | {' | '.join(self.fields)}: each line must read `this / that`")
        return pairs  # type: ignore[return-value]


def parse(text: str) -> tuple[Section, ...]:
    """The sections of a text in file order.

    >>> parse("== prompts | fit\\nHow was {it}?\\n")[0].lines
    ('How was {it}?',)
    """
    headers: list[list[str]] = []
    bodies: list[list[str]] = []
    for line in (raw.strip() for raw in text.splitlines()):
        if line.startswith("== "):
            headers.append([part.strip() for part in line[3:].split("|")])
            bodies.append([])
        elif line and not line.startswith("#"):
            if not bodies:
                raise ValueError(f"the line {line!r} stands before the first section")
            bodies[-1].append(line)
    return tuple(Section(head[0], tuple(head[1:]), tuple(body)) for head, body in zip(headers, bodies, strict=True))


@cache
def sections(name: str) -> tuple[Section, ...]:
    """The sections of the packaged file `text/<name>.txt`."""
    return parse((resources.files("optrode.data") / "text" / f"{name}.txt").read_text(encoding="utf-8"))


def select(parts: tuple[Section, ...], kind: str, *fields: str) -> list[Section]:
    """The sections of that kind whose first fields are `fields`."""
    return [part for part in parts if part.kind == kind and part.fields[: len(fields)] == fields]


def capital(text: str) -> str:
    """`text` with its first letter capitalised and the rest untouched."""
    return text[:1].upper() + text[1:]


def fill(template: str, slots: dict[str, str]) -> str:
    """Puts `slots` into a template; `{Why}` is the value of `why` with a capital.

    >>> fill("{It} {was} fine.", {"it": "the soup", "was": "was"})
    'The soup was fine.'
    """
    return template.format(**slots, **{capital(key): capital(value) for key, value in slots.items()})


def subject_slots(name: str, pronoun: str) -> dict[str, str]:
    """Slots for a subject: `{it}` its name, `{they}` and `{them}` its pronouns, `{was}` the verb that agrees."""
    them, was = PRONOUNS[pronoun]
    return {"it": name, "they": pronoun, "them": them, "was": was}


def dealt(items: Sequence[Item], count: int, random: Random) -> Iterator[list[Item]]:
    """Endless hands of `count` items: none twice in a hand, and all used about equally often.

    >>> hands = dealt("abc", 2, Random(0))
    >>> sorted(next(hands) + next(hands) + next(hands))
    ['a', 'a', 'b', 'b', 'c', 'c']
    """
    if count > len(items):
        raise ValueError(f"a hand of {count} cannot be dealt from {len(items)} items")
    deck: list[Item] = []
    while True:
        hand: list[Item] = []
        while len(hand) < count:
            index = next((i for i, item in enumerate(deck) if item not in hand), None)
            if index is None:
                deck += random.sample(items, len(items))
            else:
                hand.append(deck.pop(index))
        yield hand
