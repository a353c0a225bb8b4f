"""Whether a reply takes what comes sooner or waits for what comes later: by its amounts, else by its words of time."""

from __future__ import annotations

import re

_SOONER = re.compile(
    r"\b(now|today|tonight|immediately|at once|right away|straight away|instantly|no waiting|sooner|asap|on the spot|"
    r"this (?:minute|morning|afternoon|evening)|within the hour|smaller)\b"
)
_LATER = re.compile(
    r"\b(wait(?:ing)?|later|patient|eventually|in no rush|bigger|larger|next (?:week|month|year)|in the spring|"
    r"in (?:a|an|half a|two|three|four|five|six|eight|ten) (?:days?|weeks?|months?|years?))\b"
)


def score(reply: str, prompt: str = "") -> float:
    """1 for the sooner and smaller, 0 for the later and larger, 0.5 where the reply leaves it open.

    The amounts of the prompt decide where the reply names one of them first; otherwise its first word of time does.

    >>> score("I would take the 9 apples.", "4 apples now, or 9 apples in a year?"), score("I want it now.")
    (0.0, 1.0)
    """
    offered = sorted(int(number) for number in re.findall(r"\d+", prompt))
    named = [int(number) for number in re.findall(r"\d+", reply)]
    named = [number for number in named if number in offered]
    if len(offered) >= 2 and named:
        return float(named[0] == offered[0])
    text = reply.lower()
    sooner, later = _SOONER.search(text), _LATER.search(text)
    if sooner is None or later is None:
        return 1.0 if sooner else 0.0 if later else 0.5
    return float(sooner.start() < later.start())
