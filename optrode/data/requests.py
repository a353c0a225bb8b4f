"""Everyday requests: what a condition has to tell the prompts of one class from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from optrode.data.texts import sections


@dataclass(frozen=True)
class Conditioned:
    """Contrast pairs with the prompts that they are for: what a conditional edit is fitted on.

    `pairs` are pairs or a `Behaviour`; `inside` are prompts on which the edit should act, `outside` others.

    >>> Conditioned(pairs=[("Hi", "Hello!", "Go away.")], inside=["Hi", "Hey"], outside=["2 + 2?", "3 + 3?"]).inside
    ['Hi', 'Hey']
    """

    pairs: Any
    inside: Sequence[Any]
    outside: Sequence[Any]


@dataclass(frozen=True)
class Categorised:
    """Prompts by category: what a direction for one topic alone is fitted on.

    `target` are prompts of the topic, `others` of further topics by name, `neutral` of none.

    >>> sorted(Categorised(target=["A robin?"], others={"fish": ["A trout?"]}, neutral=["2 + 2?"]).others)
    ['fish']
    """

    target: Sequence[Any]
    others: Mapping[str, Sequence[Any]]
    neutral: Sequence[Any]


@lru_cache(maxsize=1)
def everyday_requests() -> tuple[str, ...]:
    """Short requests of many kinds, about knowledge, words, numbers and the household; none is about a behaviour.

    >>> everyday_requests()[0]
    'What is seventeen times six?'
    """
    return tuple(line for section in sections("requests") for line in section.lines)
