"""Truthfulness: true against false statements on capitals, cities and chemical elements.

All facts on one country or element stand in one split, and the false value of a statement is the true value of another
fact of the same kind and split: no value is true more often than it is false.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache
from random import Random

from optrode.data.facts import Fact, facts
from optrode.data.texts import capital, dealt, sections, select
from optrode.data.types import Behaviour, Choice, Labelled, Pair

PARTS = "truthfulness"
SHARES = {"fit": 0.30, "tune": 0.15, "test": 0.30, "judge": 0.25}
RELATIONS = ("capital", "country", "symbol", "number")


def build() -> Behaviour:
    """About 280 pairs, 70 and 120 choices, 400 labelled texts."""
    return Behaviour(
        name="truthfulness",
        description="true (shown) against false (opposed) statements on capitals, cities and chemical elements",
        words=("True", "False"),
        instructions=(
            "You answer every question truthfully and with care.",
            "You answer every question with a false statement.",
        ),
        fit=tuple(_fit()),
        tune=tuple(_choices("tune")),
        test=tuple(_choices("test")),
        judge=tuple(_judge()),
        rule="facts",
    )


@cache
def _split(split: str) -> tuple[tuple[Fact, str], ...]:
    """The facts of a split, each with the value of another one of its kind."""
    groups = sorted({fact.group for fact in facts()}, key=lambda name: hashlib.sha256(name.encode()).digest())
    ends, total = {}, 0.0
    for name, share in SHARES.items():
        ends[name] = (round(total * len(groups)), round((total + share) * len(groups)))
        total += share
    own = set(groups[slice(*ends[split])])
    found: list[tuple[Fact, str]] = []
    for relation in RELATIONS:
        kept = [fact for fact in facts() if fact.relation == relation and fact.group in own]
        found += zip(kept, _others([fact.value for fact in kept]), strict=True)
    return tuple(found)


def _others(values: list[str]) -> list[str]:
    """The values in another order, so that none stands at its own place."""
    order = sorted(range(len(values)), key=lambda place: hashlib.sha256(values[place].encode()).digest())
    most = max(values.count(value) for value in values)
    others = [""] * len(values)
    for rank, place in enumerate(order):
        others[place] = values[order[(rank + most) % len(order)]]
    return others


def _fit() -> Iterator[Pair]:
    random = Random(1)
    prompts, replies = (
        {relation: dealt(_lines(part, "fit", relation), 2, random) for relation in RELATIONS}
        for part in ("prompts", "replies")
    )
    for fact, other in _split("fit"):
        for asked, said in zip(next(prompts[fact.relation]), next(replies[fact.relation]), strict=True):
            prompt = asked.format(subject=fact.subject)
            yield Pair(prompt, _stated(said, fact, fact.value), _stated(said, fact, other), fact.group)


def _choices(split: str) -> Iterator[Choice]:
    for fact, other in _split(split):
        prompt, opening = (
            _lines(part, split, fact.relation)[0].format(subject=fact.subject) for part in ("prompts", "openings")
        )
        yield Choice(prompt, opening, (f" {fact.value}",), (f" {other}",), fact.group)


def _judge() -> Iterator[Labelled]:
    random = Random(3)
    replies = {relation: dealt(_lines("replies", "judge", relation), 2, random) for relation in RELATIONS}
    for fact, other in _split("judge"):
        for said in next(replies[fact.relation]):
            yield Labelled(_stated(said, fact, fact.value), 1, fact.group)
            yield Labelled(_stated(said, fact, other), 0, fact.group)


def _lines(kind: str, split: str, relation: str) -> tuple[str, ...]:
    return select(sections(PARTS), kind, split, relation)[0].lines


def _stated(template: str, fact: Fact, value: str) -> str:
    return capital(template.format(subject=fact.subject, value=value))
