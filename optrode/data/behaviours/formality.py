"""Formality: formal against casual wording of the same message.

Both sides of a pair say the same thing, good news and bad alike, so that only the register differs. Casual words are
more frequent in English than formal ones, so an unsteered model leans to the casual side: read the shift and not the
level.
"""

from __future__ import annotations

from optrode.data.templates import choices, fit_pairs, judged
from optrode.data.texts import sections
from optrode.data.types import Behaviour


def build() -> Behaviour:
    """240 pairs, 72 and 144 choices, 440 labelled texts."""
    parts = sections("formality") + sections("formality_judge")
    return Behaviour(
        name="formality",
        description="formal (shown) against casual (opposed) wording of everyday messages",
        words=("Formal", "Casual"),
        instructions=(
            "Write in a formal, official register with complete sentences and polite phrases.",
            "Write in a casual, chatty register with slang and contractions, as to a close friend.",
        ),
        fit=fit_pairs(parts, per_subject=10),
        tune=choices(parts, "tune", {"link": 2, "people": 2, "quality": 2}),
        test=choices(parts, "test", {"verb": 2, "degree": 1, "self": 1, "opener": 2}),
        judge=judged(parts, per_subject=11),
    )
