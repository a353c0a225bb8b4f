"""All side effects of an edit in one place, as the columns of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...data import behaviours
from ...edits.base import Edit
from ...model import Model
from ..bench import Written, write_replies
from ..statistics import bootstrap_mean
from .capability import Capability
from .decline import declined, harmless_requests
from .distinct import distinct
from .off_target import OffTarget, mean_size
from .repetition import repetition

# Other behaviours that stand for all: register, sentiment, truth and refusal.
WATCHED = ("formality", "sentiment", "truthfulness", "decline-birds")


class SideEffects:
    """Everything that side effects are measured with, prepared once on the unedited model.

    `name`: the behaviour that the edits are made for, which is left out of those watched. `questions`, `choices` and
    `requests` count capability questions, choices of each other behaviour, and harmless requests.
    """

    def __init__(
        self,
        model: Model,
        name: str,
        *,
        questions: int,
        choices: int,
        requests: int,
        new_tokens: int,
        layers: Sequence[int] = (),
        seed: int = 0,
    ):
        self.model, self.seed, self.new_tokens = model, seed, new_tokens
        self.watched = [other for other in WATCHED if other != name and other in behaviours()]
        self._capability = Capability(model, questions, layers)
        self._others = OffTarget(model, self.watched, choices, layers)
        self._requests = harmless_requests(requests)

    def columns(self, edit: Edit | None, written: Written) -> dict[str, Any]:
        """Intervals over items: distinct-1 and -2, repetition, declined harmless requests, capability, off-target.

        `written`: the replies that the comparison judges, written under the same edit. Off-target is absent for None.
        """
        replies = list(written.replies)
        answers = write_replies(self.model, self._requests, edit, new_tokens=self.new_tokens).replies
        found: dict[str, Any] = {
            "distinct_1": self._mean(distinct(replies, 1)),
            "distinct_2": self._mean(distinct(replies, 2)),
            "repetition": self._mean(repetition(replies)),
            "declines": self._mean(declined(answers), [question.group for question in self._requests]),
            "capability": self._mean(self._capability.right(edit)),
        }
        if edit is not None:
            shifts = self._others.shifts(edit)
            found["off_target"] = mean_size(shifts, seed=self.seed).as_dict()
            found["off_target_by"] = {name: round(float(values.mean()), 4) for name, values in shifts.items()}
        return found

    def describe(self) -> dict[str, Any]:
        """What was asked, for the protocol of a report."""
        return {
            "capability_questions": len(self._capability.groups),
            "harmless_requests": len(self._requests),
            "off_target": self.watched,
        }

    def _mean(self, values: np.ndarray, groups: Sequence[str] | None = None) -> dict[str, float] | None:
        """None where no reply was long enough to be measured."""
        kept = np.isfinite(values)
        if not kept.any():
            return None
        names = [group for group, keep in zip(groups, kept, strict=True) if keep] if groups is not None else None
        return bootstrap_mean(values[kept], groups=names, seed=self.seed).as_dict()
