"""How fluent replies are, next to those of the unedited model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..model import Model
from .bench import Written, fluency


def perplexity_ratio(model: Model, prompts: Sequence[str], replies: Sequence[str], plain: Sequence[str]) -> float:
    """Perplexity of replies under the unedited model, relative to that of its own replies to the same prompts.

    `replies` may hold several rounds over `prompts`, one after the other; `plain` holds one.
    """
    rounds = len(replies) // len(prompts)

    def nats(texts: Sequence[str], asked: Sequence[str]) -> float:
        written = Written(tuple(asked), tuple(texts), ("",) * len(asked), 0, 0.0)
        return float(fluency(model, written).mean())

    return float(np.exp(nats(replies, list(prompts) * rounds) - nats(plain, prompts)))
