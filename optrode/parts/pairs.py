"""Contrast data in one form: pairs of conversations that show and oppose a behaviour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..data import Behaviour, Categorised, Pair
from ..errors import BadInput

Conversation = list[dict[str, str]]


def as_pairs(data: Any) -> tuple[Pair, ...]:
    """A `Behaviour` (its fit split), pairs, or (prompt, positive, negative) triples as pairs.

    Raises `BadInput` for empty data, or items that are neither.
    """
    items = data.fit if isinstance(data, Behaviour) else data
    if isinstance(items, str) or not isinstance(items, Sequence):
        raise BadInput(f"contrast data must be pairs, not {type(data).__name__}: use op.data.pairs('sentiment')")
    if not items:
        raise BadInput("there is no pair to fit on: pass at least one pair of prompts")
    return tuple(_as_pair(item, number) for number, item in enumerate(items))


def _as_pair(item: Any, number: int) -> Pair:
    if isinstance(item, Pair):
        return item
    if (
        isinstance(item, Sequence)
        and not isinstance(item, str)
        and len(item) == 3
        and all(isinstance(t, str) for t in item)
    ):
        return Pair(item[0], item[1], item[2], group=str(number))
    raise BadInput(f"item {number} is no pair: give a Pair or (prompt, positive reply, negative reply)")


def conversation(prompt: str, reply: str) -> Conversation:
    """A user message with a reply (or its beginning) by the assistant."""
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": reply}]


@dataclass(frozen=True)
class Letters:
    """A pair as a multiple-choice question: both replies on offer, and the letter that matches the behaviour."""

    question: str
    positive: str
    negative: str


def as_letters(pairs: Sequence[Pair]) -> list[Letters]:
    """Pairs as two-letter questions; the matching letter alternates, so that both are equally often right.

    `positive` and `negative` are the answers `(A` and `(B`, whose last token is the letter.
    """
    found = []
    for number, pair in enumerate(pairs):
        first, second = (pair.positive, pair.negative) if number % 2 == 0 else (pair.negative, pair.positive)
        question = f"{pair.prompt}\n\nChoices:\n(A) {first}\n(B) {second}\n\nAnswer with the letter of your choice."
        right, wrong = ("(A", "(B") if number % 2 == 0 else ("(B", "(A")
        found.append(Letters(question, right, wrong))
    return found


def showing_and_neutral(data: Any) -> tuple[list[Any], list[Any]]:
    """Prompts that show something and prompts that do not: `Categorised` ones, or both replies of pairs in talks.

    Raises `BadInput` where either side is missing.
    """
    if isinstance(data, Categorised):
        shown, neutral = list(data.target), list(data.neutral)
    else:
        pairs = as_pairs(data)
        shown = [conversation(pair.prompt, pair.positive) for pair in pairs]
        neutral = [conversation(pair.prompt, pair.negative) for pair in pairs]
    for name, prompts in (("show it", shown), ("are neutral", neutral)):
        if not prompts:
            raise BadInput(f"there are no prompts that {name}: give at least one")
    return shown, neutral
