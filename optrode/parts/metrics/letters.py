"""The A/B evaluation: how likely a model finds the letter that shows a behaviour, each question asked both ways round.

From section 4 of "Steering Llama 2 via Contrastive Activation Addition" (arXiv 2312.06681): the answer is opened with a
bracket, and the probability of the matching letter is taken over both letters. Asking each pair with its replies in
either place takes out what a model, or an edit, prefers the letter A or B for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...data import Choice, Pair
from ...edits.base import Edit
from ...model import Model
from ..dial import Dial

OPENING = "("


@dataclass(frozen=True)
class LetterAnswers:
    """What was found, [pair] each, means over both places of the matching reply.

    `matching`: P(matching letter) over both letters, 0.5 where letters say nothing. `log_odds`: the same in nats.
    `first`: P(A) over both letters: 0.5 without a preference for a letter. `mass`: the probability of either letter
    among all tokens; an answer of less than a half is none.
    """

    matching: np.ndarray
    log_odds: np.ndarray
    first: np.ndarray
    mass: np.ndarray

    @property
    def invalid(self) -> float:
        """Share of pairs that are answered with something else than a letter."""
        return float((self.mass < 0.5).mean())


class LetterQuestions:
    """Pairs as two-letter questions on one model, in both orders, ready to be asked again under any edit.

    `layers`: blocks at which the unedited run is kept. Raises `BadInput` for no pairs, or a tokenizer that writes both
    letters alike. Cost: two forwards a pair.
    """

    def __init__(self, model: Model, pairs: Sequence[Pair], layers: Sequence[int] = ()):
        self.groups = [pair.group for pair in pairs]
        self._dial = Dial(model, [ask(pair, swapped) for pair in pairs for swapped in (False, True)], layers)

    def ask(self, edit: Edit | None = None) -> LetterAnswers:
        """The answers under an edit, or of the unedited model."""
        found = self._dial.at(edit)
        right, wrong = found.mass.reshape(-1, 2), found.wrong_mass.reshape(-1, 2)
        matching = right / (right + wrong)
        # In the order of the pair the matching letter is A, swapped it is B.
        first = (matching[:, 0] + 1 - matching[:, 1]) / 2
        log_odds = np.log(right / wrong)
        return LetterAnswers(matching.mean(1), log_odds.mean(1), first, (right + wrong).mean(1))


def ask(pair: Pair, swapped: bool) -> Choice:
    """A pair as a question whose matching letter is A, or B where swapped.

    >>> ask(Pair("How was it?", "Fine.", "Bad.", "it"), swapped=True).positive
    ('B',)
    """
    first, second = (pair.negative, pair.positive) if swapped else (pair.positive, pair.negative)
    question = f"{pair.prompt}\n\nChoices:\n(A) {first}\n(B) {second}\n\nAnswer with the letter of your choice."
    right, wrong = ("B", "A") if swapped else ("A", "B")
    return Choice(question, OPENING, (right,), (wrong,), pair.group)
