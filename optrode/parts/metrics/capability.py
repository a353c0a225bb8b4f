"""Capability: multiple-choice questions on sums, order, opposites, kinds and capitals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...data.capability import capability
from ...edits.base import Edit
from ...model import Model
from ..bench import maybe_edited, rewrites_prompt
from ..choice import ForcedChoice


class Capability:
    """The first `count` questions on one model, ready to be asked again under any edit; see `data.capability`.

    `layers`: where an edit may resume the unedited run, as in `ForcedChoice`.
    """

    def __init__(self, model: Model, count: int | None = None, layers: Sequence[int] = ()):
        self.model = model
        self._asked = ForcedChoice(model, capability(count), layers)

    @property
    def groups(self) -> list[str]:
        """The sort of each question."""
        return self._asked.groups

    def right(self, edit: Edit | None = None) -> np.ndarray:
        """1 where the right answer is likelier than each wrong one, else 0, [question] float64."""
        with maybe_edited(self.model, edit):
            sides = self._asked.sides(fresh=rewrites_prompt(edit))
        return np.array([float(right[0] > wrong.max()) for right, wrong in sides])
