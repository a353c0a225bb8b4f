"""Off-target: how far an edit moves behaviours that it was not made for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ...data import behaviour
from ...edits.base import Edit
from ...errors import BadInput
from ...model import Model
from ..bench import maybe_edited, rewrites_prompt
from ..choice import ForcedChoice
from ..statistics import RESAMPLES, Interval


class OffTarget:
    """Choices of other behaviours on one model; `count` of each, spread over its tune split."""

    def __init__(self, model: Model, names: Sequence[str], count: int, layers: Sequence[int] = ()):
        self.model = model
        self._asked = {}
        for name in names:
            choices = behaviour(name).tune
            places = np.linspace(0, len(choices) - 1, min(count, len(choices))).round().astype(int)
            self._asked[name] = ForcedChoice(model, [choices[place] for place in places], layers)
        self._base = {name: asked.ask().numpy() for name, asked in self._asked.items()}

    def shifts(self, edit: Edit) -> dict[str, np.ndarray]:
        """Log-odds shift of each choice of each behaviour, in nats; positive is towards it."""
        with maybe_edited(self.model, edit):
            fresh = rewrites_prompt(edit)
            return {name: asked.ask(fresh=fresh).numpy() - self._base[name] for name, asked in self._asked.items()}


def mean_size(shifts: Mapping[str, np.ndarray], *, seed: int = 0) -> Interval:
    """Mean over behaviours of the size of their mean shift, with a percentile bootstrap interval over choices.

    A size is never below 0, so that noise alone keeps the interval above it: compare with other edits, not with 0.
    Raises `BadInput` for no behaviours.

    >>> mean_size({"one": np.array([1.0, 1.0]), "other": np.array([-3.0, -3.0])}).value
    2.0
    """
    if not shifts:
        raise BadInput("off-target needs at least one other behaviour")
    random = np.random.default_rng(seed)
    drawn = np.zeros(RESAMPLES)
    for values in shifts.values():
        picked = random.integers(0, len(values), size=(RESAMPLES, len(values)))
        drawn += np.abs(np.asarray(values, float)[picked].mean(1)) / len(shifts)
    value = float(np.mean([abs(float(np.mean(values))) for values in shifts.values()]))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(value, float(low), float(high))
