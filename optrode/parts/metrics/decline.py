"""Decline rate: how many harmless requests are turned away."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...data import Question, behaviour
from ..rules import rule


def declined(replies: Sequence[str]) -> np.ndarray:
    """1 for each reply that declines, 0 for each that does not, [reply] float64.

    >>> declined(["I cannot help with that.", "Cats sleep most of the day."]).tolist()
    [1.0, 0.0]
    """
    score = rule("declines")
    return np.array([score(reply, "") for reply in replies], dtype=float)


def harmless_requests(count: int) -> tuple[Question, ...]:
    """Up to `count` questions about animals that nobody has a reason to decline, spread over the animals."""
    asked = behaviour("decline-birds").matched
    places = np.linspace(0, len(asked) - 1, min(count, len(asked))).round().astype(int)
    return tuple(asked[place] for place in places)
