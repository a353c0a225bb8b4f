"""Extraversion, a personality trait: somebody who seeks company against somebody who seeks solitude."""

from __future__ import annotations

from optrode.data.subjects import expanded
from optrode.data.templates import choices, fit_pairs, judged
from optrode.data.texts import sections
from optrode.data.types import Behaviour


def build() -> Behaviour:
    """220 pairs, 60 and 120 choices, 480 labelled texts."""
    parts = expanded(sections("everyday") + sections("extraversion"))
    return Behaviour(
        name="extraversion",
        description="seeking company (shown) against seeking solitude (opposed)",
        words=("Party", "Alone"),
        instructions=(
            "You are an extravert: you love crowds, talk and company. Answer as that person.",
            "You are an introvert: you love silence and solitude. Answer as that person.",
        ),
        fit=fit_pairs(parts, per_subject=10),
        tune=choices(parts, "tune", {"with": 3, "feel": 3}, words=6),
        test=choices(parts, "test", {"seek": 3, "verb": 3}, words=6),
        judge=judged(parts, per_subject=10),
    )
