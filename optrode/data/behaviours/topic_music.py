"""A topic: replies that turn to music against the same replies about something else.

Both sides of a pair share every word but the thing they are about, so that no direction scores by style.
"""

from __future__ import annotations

from optrode.data.subjects import expanded
from optrode.data.templates import choices, fit_pairs, judged
from optrode.data.texts import sections
from optrode.data.types import Behaviour


def build() -> Behaviour:
    """220 pairs, 60 and 120 choices, 432 labelled texts."""
    parts = expanded(sections("everyday") + sections("topic_music"))
    return Behaviour(
        name="topic-music",
        description="turning to music (shown) against any other subject (opposed)",
        words=("Music", "Desk"),
        instructions=(
            "Whatever you are asked, bring the conversation to music.",
            "Whatever you are asked, never mention music or songs.",
        ),
        fit=fit_pairs(parts, per_subject=10),
        tune=choices(parts, "tune", {"thing": 6}, words=6),
        test=choices(parts, "test", {"thing": 6}, words=6),
        judge=judged(parts, per_subject=9),
    )
