"""Distinct-n: how much of a reply is not a repetition of itself (arXiv 1510.03055, section 5)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...errors import BadInput


def distinct(replies: Sequence[str], n: int = 2) -> np.ndarray:
    """Number of different runs of `n` words over the number of all of them, [reply] float64.

    Taken within each reply, so that the number of replies has no say; NaN for a reply of fewer than `n` words. Raises
    `BadInput` for `n` below 1.

    >>> distinct(["so it goes and so it goes"]).round(3).tolist()
    [0.667]
    """
    if n < 1:
        raise BadInput(f"distinct-n counts runs of at least 1 word, not {n}")
    shares = []
    for reply in replies:
        words = reply.split()
        runs = [tuple(words[place : place + n]) for place in range(len(words) - n + 1)]
        shares.append(len(set(runs)) / len(runs) if runs else np.nan)
    return np.array(shares, dtype=float)
