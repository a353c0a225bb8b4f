"""Whether a reply repeats the value that its prompt quotes: an hour, a day or a colour."""

from __future__ import annotations

import re

_HOURS = (
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "noon",
    "midnight",
)  # fmt: skip
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_COLOURS = (
    "red", "blue", "green", "yellow", "white", "black", "brown", "grey", "gray", "orange", "purple", "pink", "golden",
    "silver", "violet",
)  # fmt: skip
_VALUES = {"hour": _HOURS, "day": _DAYS, "colour": _COLOURS}
_DIGITS = {str(number): word for number, word in enumerate(_HOURS[:12], 1)}


def score(reply: str, prompt: str = "") -> float:
    """1 where the first value that a reply names is the quoted one, 0 where it is another of its kind, else 0.5.

    >>> score("They open at ten.", 'You said: "The gates open at ten." When?'), score("At 9.", 'You said: "At ten."')
    (1.0, 0.0)
    """
    quoted = re.search(r'"(.*?)"', prompt, re.DOTALL)
    # The last value of the quote is the one in question: `The second one is red.`
    said = _named(quoted.group(1)) if quoted else []
    if not said:
        return 0.5
    kind, value = said[-1]
    answers = [word for other, word in _named(reply) if other == kind]
    # The beginning of the reply may say the numeral `one` in `the one that is red`; only the kind in question counts.
    return float(answers[0] == value) if answers else 0.5


def _named(text: str) -> list[tuple[str, str]]:
    words = [_DIGITS.get(word, word) for word in re.findall(r"[a-z]+|\d+", text.lower())]
    return [(kind, word) for word in words for kind, known in _VALUES.items() if word in known]
