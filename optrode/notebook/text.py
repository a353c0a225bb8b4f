"""Texts and numbers as a reader should see them."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable
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


def cut(value: Any, most: int = 160) -> str:
    """A text in one line, cut where it is long.

    >>> cut("a  long\\nway", 8)
    'a long …'
    """
    # Only what can be shown is looked at: a text may be a whole book.
    text = " ".join(str(value)[: 4 * most + 100].split())
    return text if len(text) <= most else text[: most - 1] + "…"


def number(value: Any) -> str:
    """A number in few digits, with a true minus.

    >>> number(-5.7681), number(21371.4), number(0.00012), number(3), number(float("nan"))
    ('−5.77', '21,371', '0.00012', '3', 'no number')
    """
    value = float(value)
    if math.isnan(value):
        return "no number"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    size = abs(value)
    text = f"{size:.2e}" if size >= 1e9 else f"{size:,.0f}" if size >= 1000 else f"{size:.3g}"
    return f"−{text}" if value < 0 and text != "0" else text


def several(count: int, one: str, many: str = "") -> str:
    """A count with its noun.

    >>> several(1, "site"), several(1200, "site")
    ('1 site', '1,200 sites')
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def spans(numbers: Iterable[int]) -> str:
    """Whole numbers with neighbours drawn together, as a pattern of sites has them.

    >>> spans([3, 1, 2]), spans([3, 1, 2, 7])
    ('1-3', '{1-3,7}')
    """
    runs: list[list[int]] = []
    for one in sorted(set(numbers)):
        if runs and one == runs[-1][-1] + 1:
            runs[-1].append(one)
        else:
            runs.append([one])
    text = ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
    return text if len(runs) < 2 else f"{{{text}}}"


# Bidirectional overrides, embeddings and isolates: they can make a line read otherwise than it is stored.
_DIRECTION = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
