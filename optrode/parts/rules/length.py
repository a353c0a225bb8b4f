"""How concise a reply is, by its number of words."""

from __future__ import annotations

import math

EVEN = 14.0  # words at which a reply counts as neither short nor long: the length of one plain sentence
SLOPE = 3.0


def score(reply: str, prompt: str = "") -> float:
    """1 for few words, 0.5 at 14, 0 for many; an empty reply says nothing and scores 0.5.

    >>> score("A tool."), score("word " * 14), score("word " * 60)
    (0.982..., 0.5, 2.1...e-07)
    """
    words = len(reply.split())
    return 1 / (1 + math.exp((words - EVEN) / SLOPE)) if words else 0.5
