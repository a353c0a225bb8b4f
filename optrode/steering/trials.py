"""What studies of steering share: one search for every candidate, and what its choice does to held-out items."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..data import Behaviour, Choice, neutral_texts
from ..edits import add
from ..edits.base import Edit
from ..model import Model
from ..parts.bench import Neutral, maybe_edited, rewrites_prompt
from ..parts.choice import ForcedChoice
from ..parts.directions import random_direction
from ..parts.statistics import Interval, bootstrap_mean
from ..parts.tuner import Trial, tune
from .fitting import spread

REFUSALS = ("I'm sorry, but I can't talk about that.", "I'm sorry, but I can't help with that.")
ANSWERS = ("Sure, here is what I know.", "Yes, of course. Here is the answer.")


@dataclass(frozen=True)
class Budget:
    """What every candidate gets: pairs to fit on, items to tune and test on, layers, and strengths as shares of the
    stream's norm. `damage` is the largest perplexity ratio on neutral passages that a choice may cost."""

    layers: tuple[int, ...]
    strengths: tuple[float, ...] = (0.1, 0.2, 0.4)
    pairs: int = 60
    tune: int = 24
    test: int = 48
    neutral: int = 4
    damage: float = 1.2


class Trials:
    """A behaviour on a model, with the unedited answers kept.

    `tune_items` and `test_items` replace the behaviour's own, for other groups of prompts.
    """

    def __init__(
        self,
        model: Model,
        behaviour: Behaviour,
        budget: Budget,
        *,
        tune_items: Sequence[Choice] = (),
        test_items: Sequence[Choice] = (),
    ):
        resume_at = sorted({*budget.layers, *(layer + 1 for layer in budget.layers)})
        self.model, self.budget = model, budget
        self.behaviour = replace(behaviour, fit=spread(behaviour.fit, budget.pairs))
        self.tune = Items(model, tune_items or spread(behaviour.tune, budget.tune), resume_at)
        self.test = Items(model, test_items or spread(behaviour.test, budget.test), resume_at)
        passages = neutral_texts(2 * budget.neutral)
        self.tune_neutral = Neutral(model, passages[: budget.neutral], resume_at)
        self.test_neutral = Neutral(model, passages[budget.neutral :], resume_at)

    def best(
        self, edits: dict[int, Edit], scale: float = 1.0, *, damage: Callable[[Edit], float] | None = None
    ) -> tuple[Edit, Trial]:
        """The edit with the largest effect on the tuning items within the damage allowed, and where it is.

        `edits`: one of strength 1 a layer; `scale` times the budget's strengths are tried.
        """
        strengths = [strength * scale for strength in self.budget.strengths]
        measured = damage or self.tune_neutral.perplexity_ratio
        found = tune(
            edits, strengths, lambda edit: float(self.tune.gain(edit).mean()), measured, self.budget.damage,
            measure_all=False,
        ).best  # fmt: skip
        return edits[found.layer] * found.strength, found

    def random(self, norms: dict[int, float], count: int, seed: int = 0) -> list[float]:
        """Mean gain on the test items of random directions of stream norm, each through the same search."""
        gains = []
        for number in range(count):
            vector = random_direction(self.model.width or 0, 1000 * seed + number)
            edits: dict[int, Edit] = {
                layer: add(f"layers.{layer}.out", vector * norm, "after_instruction") for layer, norm in norms.items()
            }
            gains.append(float(self.test.gain(self.best(edits)[0]).mean()))
        return gains


class Items:
    """Forced choices, and how an edit moves each."""

    def __init__(self, model: Model, choices: Sequence[Choice], resume_at: Sequence[int]):
        self._asked = ForcedChoice(model, choices, resume_at)
        self._model = model
        self.groups = self._asked.groups
        self.base = self._asked.ask().numpy()

    def gain(self, edit: Edit) -> np.ndarray:
        """Change of the log-odds of what shows the behaviour, nats, one an item."""
        with maybe_edited(self._model, edit):
            return self._asked.ask(fresh=rewrites_prompt(edit)).numpy() - self.base  # type: ignore[no-any-return]

    def interval(self, values: np.ndarray) -> Interval:
        """The mean with a bootstrap interval over subjects."""
        return bootstrap_mean(values, groups=self.groups)


def declining(prompts: Sequence[str], groups: Sequence[str]) -> list[Choice]:
    """Each prompt as a choice between declining (shown) and beginning to answer."""
    return [Choice(prompt, "", REFUSALS, ANSWERS, group) for prompt, group in zip(prompts, groups, strict=True)]


def stream_norms(edits: dict[int, Edit]) -> dict[int, float]:
    """The stream's norm at each layer, as the edits' provenance has it."""
    found = {}
    for layer, edit in edits.items():
        leaf = edit.leaves()[0]  # type: ignore[attr-defined]
        found[layer] = float(leaf.provenance.stream_norm[leaf.site])
    return found
