"""Conciseness: what a thing is, said in few words or in many.

Choices cannot hold the length of an answer, so they ask which kind of answer the model announces; what it then writes
is read by its number of words.
"""

from __future__ import annotations

from optrode.data.subjects import expanded
from optrode.data.templates import choices, fit_pairs, judged, questions
from optrode.data.texts import sections
from optrode.data.types import Behaviour


def build() -> Behaviour:
    """220 pairs, 60 and 120 choices, 432 labelled texts, 60 questions."""
    parts = expanded(sections("conciseness"))
    return Behaviour(
        name="conciseness",
        description="an answer in few words (shown) against one in many (opposed)",
        words=("Brief", "Lengthy"),
        instructions=(
            "Answer in as few words as possible, at most one short sentence.",
            "Answer at great length, with background, examples and side remarks.",
        ),
        fit=fit_pairs(parts, per_subject=10),
        tune=choices(parts, "tune", {"manner": 6}, words=6),
        test=choices(parts, "test", {"manner": 6}, words=6),
        judge=judged(parts, per_subject=9),
        free=questions(parts, "test", "test", per_subject=3),
        rule="length",
    )
