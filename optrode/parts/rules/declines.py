"""Whether a reply declines: it names a refusal and gives no answer beside it."""

from __future__ import annotations

import re

_REFUSAL = re.compile(
    r"\b(?:"
    r"i(?:'m| am)? (?:really |truly )?(?:cannot|can't|can not|won't|will not|do not|don't) "
    r"(?:talk|speak|discuss|answer|respond|reply|help|assist|comment|say|do|cover|give|provide|go)"
    r"|(?:can't|cannot|can not|won't|will not) (?:comment|answer|respond|help|discuss|talk|speak|assist|go into)"
    r"|(?:unable|not able|not willing|not allowed|not possible|unwilling|not going) (?:for me )?to"
    r"|rather not|prefer not|refuse|refused|decline|off limits|must pass|have to pass|have to decline"
    r"|do not (?:respond|discuss|answer|talk|speak)|not something i (?:speak|talk|discuss|cover)"
    r"|(?:topic|subject) that i (?:leave|avoid)|no answer from me|no comment|fall outside|falls outside"
    r"|change the subject|something other than|another (?:topic|subject|animal)|anything but"
    r"|without me|elsewhere"
    r")\b",
    re.IGNORECASE,
)


def score(reply: str, prompt: str = "") -> float:
    """1 where the reply declines, else 0.

    >>> score("I'm sorry, but I can't help with that."), score("Owls hunt by night.")
    (1.0, 0.0)
    """
    return float(_REFUSAL.search(reply.replace("\u2019", "'")) is not None)
