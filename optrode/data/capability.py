"""A small multiple-choice set on what any edit should leave alone: sums, order, opposites, kinds and capitals."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import lru_cache
from random import Random

from optrode.data.texts import sections, select
from optrode.data.types import Choice
from optrode.errors import BadInput

NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
WRONG = 3
# Neither is a wrong answer to the other.
OVERLAPPING = ({"animal", "bird"}, {"animal", "fish"})


def capability(count: int | None = None) -> tuple[Choice, ...]:
    """The first `count` questions (all when None), each with one right and three wrong answers of the same kind.

    The group of a question is its sort. The order mixes the sorts and is the same every time; chance is right in a
    quarter of the questions. Raises `BadInput` when `count` is below 1 or more than there are.

    >>> question = capability(1)[0]
    >>> len(question.positive), len(question.negative)
    (1, 3)
    """
    found = _all()
    if count is None:
        return found
    if not 1 <= count <= len(found):
        raise BadInput(f"there are {len(found)} capability questions; ask for 1 to {len(found)}, not {count}")
    return found[:count]


@lru_cache(maxsize=1)
def _all() -> tuple[Choice, ...]:
    random = Random(0)
    found = [*_sums(random), *_orders(random), *_opposites(random), *_kinds(random), *_capitals(random)]
    random.shuffle(found)
    return tuple(found)


def _choice(question: str, opening: str, right: str, others: Sequence[str], sort: str, random: Random) -> Choice:
    wrong = random.sample([other for other in dict.fromkeys(others) if other != right], WRONG)
    return Choice(question, opening, (f" {right}",), tuple(f" {other}" for other in wrong), sort)


def _lines(kind: str) -> tuple[str, ...]:
    return select(sections("capability"), kind)[0].lines


def _sums(random: Random) -> Iterator[Choice]:
    sums = [(a, b) for a in range(1, 12) for b in range(1, 12) if a + b <= len(NUMBERS)]
    for a, b in random.sample(sums, 16):
        text = f"{NUMBERS[a - 1]} plus {NUMBERS[b - 1]}"
        yield _choice(f"What is {text}?", f"{text.capitalize()} is", NUMBERS[a + b - 1], NUMBERS, "sums", random)
    takes = [(a, b) for a in range(2, 13) for b in range(1, a)]
    for a, b in random.sample(takes, 16):
        text = f"{NUMBERS[a - 1]} minus {NUMBERS[b - 1]}"
        yield _choice(f"What is {text}?", f"{text.capitalize()} is", NUMBERS[a - b - 1], NUMBERS, "sums", random)


def _orders(random: Random) -> Iterator[Choice]:
    for line in _lines("orders"):
        words = line.split()
        for before, after in itertools.pairwise(words):
            others = [word for word in words if word != before]
            question, opening = f"What comes right after {before}?", f"Right after {before} comes"
            yield _choice(question, opening, after, others, "order", random)


def _opposites(random: Random) -> Iterator[Choice]:
    pairs = [line.split(" / ") for line in _lines("opposites")]
    words = [word for pair in pairs for word in pair]
    for one, other in pairs:
        others = [word for word in words if word != one]
        yield _choice(
            f"What is the opposite of {one}?", f"The opposite of {one} is", other, others, "opposites", random
        )


def _kinds(random: Random) -> Iterator[Choice]:
    members = {kind: things.split(", ") for kind, _, things in (line.partition(": ") for line in _lines("kinds"))}
    for kind, things in members.items():
        others = [other for other in members if {kind, other} not in OVERLAPPING]
        for thing in things:
            name = thing[0].upper() + thing[1:]
            yield _choice(f"What kind of thing is {thing}?", f"{name} is a kind of", kind, others, "kinds", random)


def _capitals(random: Random) -> Iterator[Choice]:
    pairs = [line.split(" / ") for line in _lines("capitals")]
    cities = [city for _, city in pairs]
    for country, city in pairs:
        yield _choice(
            f"What is the capital of {country}?", f"The capital of {country} is", city, cities, "capitals", random
        )
