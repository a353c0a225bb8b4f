"""Plain factual passages: what a behaviour is compared with, and what an edit should leave alone."""

from __future__ import annotations

from functools import lru_cache
from random import Random

from optrode.data.texts import sections
from optrode.errors import BadInput


@lru_cache(maxsize=1)
def _passages() -> tuple[str, ...]:
    passages = [line for section in sections("neutral") for line in section.lines]
    Random(0).shuffle(passages)  # so that a small count still spans the topics
    return tuple(passages)


def neutral_texts(count: int | None = None) -> tuple[str, ...]:
    """The first `count` passages (all when None) of two to four sentences, 25 to 60 words each, without opinions.

    The order is fixed and mixes the topics. Raises `BadInput` when `count` is below 1 or more than there are.

    >>> len(neutral_texts(3))
    3
    """
    passages = _passages()
    if count is None:
        return passages
    if not 1 <= count <= len(passages):
        raise BadInput(f"there are {len(passages)} neutral texts; ask for 1 to {len(passages)}, not {count}")
    return passages[:count]
