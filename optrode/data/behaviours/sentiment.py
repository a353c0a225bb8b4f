"""Sentiment: a favourable against an unfavourable opinion of a thing, a person or an outing.

No word that a choice offers occurs in a reply of `fit`, and `tune` and `test` offer different words, so that no
direction scores by raising the very words it was fitted on. Both sides of a choice hold words of about the same
frequency in English. `judge` mixes plain praise and blame with texts that hold no opinion word, with negations and
with changes of mind.
"""

from __future__ import annotations

from optrode.data.templates import choices, fit_pairs, judged
from optrode.data.texts import sections
from optrode.data.types import Behaviour

SORTS = {"adjective": 4, "feeling": 1, "noun": 1}


def build() -> Behaviour:
    """240 pairs, 72 and 144 choices, 1200 labelled texts."""
    parts = sections("sentiment") + sections("sentiment_judge")
    return Behaviour(
        name="sentiment",
        description="favourable (shown) against unfavourable (opposed) opinions of things, people and outings",
        words=("Love", "Hate"),
        instructions=(
            "You like everything you are asked about. Answer with a warm, positive opinion.",
            "You dislike everything you are asked about. Answer with a harsh, negative opinion.",
        ),
        fit=fit_pairs(parts, per_subject=10),
        tune=choices(parts, "tune", SORTS),
        test=choices(parts, "test", SORTS),
        judge=judged(parts, per_subject=30),
    )
