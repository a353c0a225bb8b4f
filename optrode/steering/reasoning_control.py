"""Control vectors for tasks with right answers (Improving Reasoning Performance via RepE, arXiv 2504.19483)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..data import Pair
from ..data.reasoning import noise
from ..errors import BadInput, did_you_mean
from ..parts.directions import mean_difference, oriented
from ..parts.pairs import conversation
from .protocol import DirectionMethod

ESTIMATORS = ("contrast", "reading", "principal")
NEGATIVES = ("noise", "wrong")


@dataclass(frozen=True)
class ReasoningControl(DirectionMethod):
    """One vector from solved tasks, added at all positions of one middle layer; its dial is turned both ways.

    H+ are block outputs at the last token of questions with their right answers, H- of random strings of characters.

    estimator: `contrast`, mean(h+ - h-). `reading`, mean(h+), with no contrast at all. `principal`: the first principal
        component of the differences, which centring strips of their mean, times the length of that mean.
    negatives: `noise` as in the paper, whose vector is then mostly text against noise; `wrong`, the pairs' own opposing
        replies.
    sign: `majority` turns the component so that most pairs lie on its positive side, as its ancestor `repeng` does.
        `none` leaves it as the decomposition gives it: the published code's, in which a best alpha below zero says
        nothing.
    """

    id: ClassVar[str] = "reasoning-control"
    title: ClassVar[str] = "reasoning control vector"
    paper: ClassVar[str] = "2504.19483"

    positions: str = "all"
    estimator: str = "contrast"
    negatives: str = "noise"
    sign: str = "majority"
    seed: int = 0

    def conversations(self, pairs: Sequence[Pair]) -> tuple[list[Any], list[Any]]:
        if self.negatives not in NEGATIVES:
            raise BadInput(f"negatives '{self.negatives}' are not known: {did_you_mean(self.negatives, NEGATIVES)}")
        positive, negative = super().conversations(pairs)
        if self.negatives == "wrong":
            return positive, negative
        random = Random(self.seed)
        lengths = [len(pair.prompt) for pair in pairs], [len(pair.positive) for pair in pairs]
        return positive, [
            conversation(noise(one, random), noise(two, random)) for one, two in zip(*lengths, strict=True)
        ]

    def direction(self, positive: Tensor, negative: Tensor) -> Tensor:
        if self.estimator == "contrast":
            return mean_difference(positive, negative)
        if self.estimator == "reading":
            return positive.mean(0)
        if self.estimator == "principal":
            return self._principal(positive, negative)
        raise BadInput(f"estimator '{self.estimator}' is not known: {did_you_mean(self.estimator, ESTIMATORS)}")

    def _principal(self, positive: Tensor, negative: Tensor) -> Tensor:
        if self.sign not in ("majority", "none"):
            raise BadInput(f"sign '{self.sign}' is not known: use majority or none")
        if len(positive) < 2:
            raise BadInput("a principal direction needs at least two pairs")
        difference = (positive - negative).double()
        component = torch.linalg.svd(difference - difference.mean(0), full_matrices=False).Vh[0]
        vector = (component * difference.mean(0).norm()).float()
        return oriented(vector, positive, negative) if self.sign == "majority" else vector
