"""Whether a reply states a fact rightly: it names a subject of the table, and beside it a value of the right kind."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from ...data.facts import Fact, facts

_NUMBER = re.compile(r"atomic|proton|periodic|\d", re.IGNORECASE)
_CAPITAL = re.compile(r"capital|government", re.IGNORECASE)
# Symbols of elements that are words too: they count where a reply names no other symbol.
_WORDS = {"Am", "As", "At", "Be", "He", "I", "In", "No"}


def score(reply: str, prompt: str = "") -> float:
    """1 where the first value that the reply gives for its subject is right, 0 where it is wrong, 0.5 where none is.

    >>> score("The capital of France is Paris."), score("The capital of France is Rome."), score("France is nice.")
    (1.0, 0.0, 0.5)
    """
    for fact in _about(reply):
        named = _first(reply, fact)
        if named is not None:
            return float(named == fact.value)
    return 0.5


def _about(reply: str) -> Iterator[Fact]:
    """The facts that a reply may be about, those with the longest names first."""
    relations = ("number" if _NUMBER.search(reply) else "symbol", "capital" if _CAPITAL.search(reply) else "country")
    for fact in sorted(facts(), key=lambda fact: -len(fact.subject)):
        if fact.relation in relations and _subject(fact).search(reply):
            yield fact


def _first(reply: str, fact: Fact) -> str | None:
    """The first value of the relation that the reply names outside of the subject's own name."""
    rest = _subject(fact).sub(" ", reply)
    places = [
        (value in _WORDS, match.start(), -len(value), value)
        for value in _values(fact.relation)
        if (match := _word(value).search(rest))
    ]
    return min(places)[-1] if places else None


def _subject(fact: Fact) -> re.Pattern[str]:
    return _word(fact.subject, ignore=fact.relation in ("symbol", "number"))


@cache
def _values(relation: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(fact.value for fact in facts() if fact.relation == relation))


@cache
def _word(text: str, ignore: bool = False) -> re.Pattern[str]:
    bare = re.sub("^the ", "", text)
    return re.compile(rf"(?<!\w){re.escape(bare)}(?!\w)", re.IGNORECASE if ignore else 0)
