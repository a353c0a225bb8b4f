"""Traits of character: system prompts that ask for one and for none, and everyday questions in three splits."""

from __future__ import annotations

from functools import lru_cache

from optrode.data.requests import Categorised
from optrode.data.texts import sections, select
from optrode.errors import UnknownName, did_you_mean

Conversation = list[dict[str, str]]
SPLITS = ("fit", "tune", "test")


@lru_cache(maxsize=1)
def traits() -> tuple[str, ...]:
    """The names of the traits.

    >>> traits()[:2]
    ('cheerful', 'gloomy')
    """
    return select(sections("traits"), "traits")[0].lines


def trait_questions(split: str) -> tuple[str, ...]:
    """Everyday questions of a split; none is in two. Raises `UnknownName`.

    >>> len(trait_questions("fit")), len(trait_questions("test"))
    (20, 12)
    """
    if split not in SPLITS:
        raise UnknownName(f"there is no split {split!r}; {did_you_mean(split, SPLITS)}")
    return select(sections("traits"), "questions", split)[0].lines


def asked_as(trait: str, question: str) -> Conversation:
    """A question to somebody of a trait; an empty trait asks a person without one.

    >>> asked_as("shy", "How are you?")[0]["content"]
    'You are a shy person.'
    """
    who = f"You are a {trait} person." if trait else "You are a person."
    return [{"role": "system", "content": who}, {"role": "user", "content": question}]


def trait_prompts(trait: str, split: str = "fit") -> Categorised:
    """The questions of a split asked of somebody with the trait (`target`) and without any (`neutral`), in pairs.

    Raises `UnknownName` for a trait that is none of `traits()`.
    """
    if trait not in traits():
        raise UnknownName(f"there is no trait {trait!r}; {did_you_mean(trait, traits())}")
    asked = trait_questions(split)
    return Categorised(
        target=[asked_as(trait, question) for question in asked],
        others={},
        neutral=[asked_as("", question) for question in asked],
    )
