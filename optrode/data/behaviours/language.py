"""Language: Spanish against English. Each reply says the same in both.

A choice starts with a name that both languages share and asks in which of the two the sentence goes on.
"""

from __future__ import annotations

from optrode.data.subjects import expanded
from optrode.data.templates import choices, fit_pairs, judged, questions
from optrode.data.texts import sections
from optrode.data.types import Behaviour


def build() -> Behaviour:
    """220 pairs, 60 and 120 choices, 450 labelled texts, 60 questions."""
    parts = expanded(sections("language"))
    return Behaviour(
        name="language",
        description="Spanish (shown) against English (opposed)",
        words=("Español", "English"),
        instructions=(
            "Responde siempre en español.",
            "Always answer in English.",
        ),
        fit=fit_pairs(parts, per_subject=10),
        tune=choices(parts, "tune", {"after": 6}, words=6),
        test=choices(parts, "test", {"after": 6}, words=6),
        judge=judged(parts, per_subject=9),
        free=questions(parts, "test", "test", per_subject=3),
        rule="language",
    )
