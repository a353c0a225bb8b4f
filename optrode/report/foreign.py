"""Texts from users and models, made safe to show; the template and the terminal escape their markup."""

from __future__ import annotations

import unicodedata
from typing import Any


def harmless(value: Any) -> str:
    """A foreign text without the control and direction characters that could repaint a terminal or reorder a line.

    >>> harmless("red \\x1b[31m\\nline")
    'red �[31m\\nline'
    """
    text = "" if value is None else str(value)
    kept = (
        character
        if character in "\n\t" or unicodedata.category(character) not in {"Cc", "Cs"}
        else "\N{REPLACEMENT CHARACTER}"
        for character in text
        if character not in _DIRECTION
    )
    return "".join(kept)


# Bidirectional overrides, embeddings and isolates: they can make a line read otherwise than it is stored.
_DIRECTION = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
