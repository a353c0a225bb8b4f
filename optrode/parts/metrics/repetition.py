"""Repetition: the share of words at which a reply goes round in circles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LENGTH = 3  # words in a row that must have stood together before


def repetition(replies: Sequence[str]) -> np.ndarray:
    """Share of words that end a run of three which the reply has said before, [reply] float64; 0 for a short one.

    Where distinct-n falls with any common phrase, this rises towards 1 only as a reply repeats itself at length.

    >>> repetition(["no no no no no", "a plain sentence of six words"]).tolist()
    [0.4, 0.0]
    """
    shares = []
    for reply in replies:
        words, seen, again = reply.split(), set(), 0
        for place in range(len(words) - LENGTH + 1):
            run = tuple(words[place : place + LENGTH])
            again += run in seen
            seen.add(run)
        shares.append(again / len(words) if words else 0.0)
    return np.array(shares, dtype=float)
