"""Swish and the search that found it (Searching for Activation Functions, arXiv 1710.05941)."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from ...engine.progress import Steps
from ...errors import BadInput, did_you_mean
from ..controller import learn
from ..of_formula import from_formula
from ..search import BINARY, UNARY, Candidate, Reward, Scored, Space, distinct, score
from .protocol import ActivationMethod

STRATEGIES = ("exhaustive", "random", "controller")


@dataclass(frozen=True)
class SwishSearch(ActivationMethod):
    """Swish, x sigmoid(beta x) with a trainable beta for each `per`; and `search`, which looks for other functions.

    beta: where it starts; 1 is SiLU, 0 is x/2, and a large one nears ReLU. trainable: whether it learns.
    unary, binary, units: the space, by the names of `optrode.functions.search`. strategy: `exhaustive` (small spaces),
    `random` (the baseline of every other), or the paper's `controller`. budget: how many candidates the last two try.
    """

    id: ClassVar[str] = "swish-search"
    title: ClassVar[str] = "Swish"
    paper: ClassVar[str] = "1710.05941"

    beta: float = 1.0
    trainable: bool = True
    per: str = "channel"
    unary: tuple[str, ...] = tuple(UNARY)
    binary: tuple[str, ...] = tuple(BINARY)
    units: int = 1
    strategy: str = "random"
    budget: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise BadInput(f"there is no strategy '{self.strategy}': {did_you_mean(self.strategy, STRATEGIES)}")
        if self.budget < 1:
            raise BadInput(f"the budget is {self.budget} candidates: try at least one")

    @property
    def label(self) -> str:
        return "Swish" if self.trainable else f"Swish, beta {self.beta:g} fixed"

    @property
    def space(self) -> Space:
        return Space(self.unary, self.binary, self.units)

    def module(self, width: int, *, axis: int = -1) -> nn.Module:
        function = from_formula("x*sigmoid(b*x)", parameters={"b": self.beta}, name="Swish")
        return function.module(width, per=self.per, axis=axis, trainable=self.trainable)

    def search(self, reward: Reward, steps: Steps | None = None) -> list[Scored]:
        """Candidates by their reward, best first; each function once.

        `reward` takes a function, such as the accuracy on held-out examples of a network that was trained with it. What
        is no number counts as 0. Raises `BadInput` for an exhaustive search of more than 100,000 candidates.
        """
        if self.strategy == "controller":
            return self._controlled(reward)
        if self.strategy == "exhaustive":
            return score(distinct(self.space.all()), reward, steps)
        draws, chosen = random.Random(self.seed), dict[Candidate, None]()
        # Draws that repeat cost nothing, so they are no part of the budget; a small space is over at last.
        for _ in range(100 * self.budget):
            if len(chosen) == self.budget:
                break
            chosen[self.space.draw(draws)] = None
        return score(distinct(list(chosen)), reward, steps)

    def _controlled(self, reward: Reward) -> list[Scored]:
        known: dict[Candidate, Scored] = {}

        def rewarded(candidate: Candidate) -> float:
            if candidate not in known:
                known[candidate] = score([(candidate, candidate.function())], reward)[0]
            return known[candidate].reward

        learn(self.space, rewarded, self.budget, seed=self.seed)
        return sorted(known.values(), key=lambda one: -one.reward)
