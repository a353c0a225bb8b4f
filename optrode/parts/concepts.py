"""Linear concepts, and the smallest shift along them: a probe says how much of a concept there is, and how far to go.

One closed form serves every method that steers with concept activation vectors: the shift along the probe's weight
after which the probe says a wanted probability (`optrode.edits.reach`). It is another one for every token.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..edits import SIDES, SiteEdit, reach
from ..edits.operators import shift_length
from ..errors import BadInput, did_you_mean
from .contrast import Contrast
from .probe import cross_validated_accuracy, fit_logistic


@dataclass(frozen=True, eq=False)
class Concept:
    """A logistic probe at one site: probability of the concept = sigmoid(weight . h + bias).

    `weight` [width] float32. `accuracy` is that on pairs it was not fitted on; None where nobody asked.
    """

    site: str
    weight: Tensor
    bias: float
    accuracy: float | None = None

    @property
    def direction(self) -> Tensor:
        """The unit vector that points to the concept, [width]."""
        return self.weight / self.weight.norm()

    def probability(self, h: Tensor) -> Tensor:
        """Probability of the concept in activations [..., width]."""
        return torch.sigmoid(h @ self.weight.to(h) + self.bias)

    def shift(self, h: Tensor, probability: float, side: str = "at_least") -> Tensor:
        """Signed length of the smallest shift of each activation along `direction` to a probability, [...]."""
        return shift_length(h, self.weight.to(h), self.bias, logit(probability), side_of(side))

    def edit(self, probability: float, side: str = "at_least", positions: str = "all") -> SiteEdit:
        """The edit that makes this shift."""
        return reach(self.site, self.weight, self.bias, probability, positions, side=side)


def logit(probability: float) -> float:
    """log(p / (1 - p)). Raises `BadInput` for a probability that is not between 0 and 1."""
    if not 0 < probability < 1:
        raise BadInput(f"probability is {probability}: it must lie between 0 and 1, both excluded")
    return math.log(probability / (1 - probability))


def side_of(name: str) -> float:
    """1, -1 or 0 for `at_least`, `at_most` and `exactly`."""
    if name not in SIDES:
        raise BadInput(f"side '{name}' is not known: {did_you_mean(name, SIDES)}")
    return SIDES[name]


def fit_concepts(
    contrast: Contrast, sites: Sequence[str], *, penalty: float = 1.0, standardised: bool = False, held_out: bool = True
) -> dict[str, Concept]:
    """A probe between both sides of a contrast at each site; with its accuracy over groups of pairs if `held_out`.

    Both members of a pair stay together, since they share their context. `penalty` is scikit-learn's inverse C.
    Costs a logistic regression a site, five more if `held_out`. Raises `BadInput` for fewer than two groups then.
    """
    found = {}
    for site in sites:
        weight, bias = fit_logistic(*contrast.at(site), penalty=penalty, standardised=standardised)
        accuracy = None
        if held_out:
            accuracy = cross_validated_accuracy(contrast, site, penalty=penalty, standardised=standardised).value
        found[site] = Concept(site, weight, bias, accuracy)
    return found


def accurate(concepts: dict[str, Concept], least: float) -> dict[str, Concept]:
    """The concepts whose held-out accuracy is above `least`.

    Raises `BadInput` when there is none, with the best one.
    """
    kept = {site: one for site, one in concepts.items() if one.accuracy is not None and one.accuracy > least}
    if not kept:
        best = max(concepts.values(), key=lambda one: one.accuracy or 0.0)
        raise BadInput(
            f"no site tells both sides apart with accuracy above {least:g} on held-out pairs: the best is {best.site} "
            f"with {best.accuracy or 0:.2f}; use more pairs, or a lower accuracy="
        )
    return kept


# Several at once ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class JointShift:
    """Shifts along several concepts at once.

    `lengths` [row, concept]: signed, along each concept's direction. `probabilities` [row, concept]: after the shift.
    `condition`: that of the directions' products; above a few hundred two concepts are nearly the same or opposite, and
    shifts explode.
    """

    lengths: Tensor
    probabilities: Tensor
    condition: float


def joint_shift(
    h: Tensor, concepts: Sequence[Concept], probabilities: Sequence[float], sides: Sequence[str]
) -> JointShift:
    """The shifts along several concepts of one site, of the smallest sum of lengths, that meet all of their bounds.

    A linear programme of one variable for each concept, row by row (arXiv 2501.05764, section on several concepts):
    minimise sum |length| such that every probability is at least, or at most, the one that is asked for. `h` is
    [row, width]. Raises `BadInput` where no shift meets all of them. Costs a millisecond a row.
    """
    from scipy.optimize import linprog

    if not concepts or not len(concepts) == len(probabilities) == len(sides):
        raise BadInput(
            f"{len(concepts)} concepts, {len(probabilities)} probabilities and {len(sides)} sides: give one of each"
        )
    weights = torch.stack([one.weight for one in concepts]).double().cpu().numpy()
    directions = weights / np.linalg.norm(weights, axis=1, keepdims=True)
    bias = np.array([one.bias for one in concepts])
    signs = np.array([side_of(side) for side in sides])
    if not signs.all():
        raise BadInput("side 'exactly' is no bound: use at_least or at_most for several concepts at once")
    targets = np.array([logit(probability) for probability in probabilities])
    products, rows = weights @ directions.T, h.double().cpu().numpy()
    lengths = np.zeros((len(rows), len(concepts)))
    for number, row in enumerate(rows):
        gap = signs * (targets - weights @ row - bias)
        bound = signs[:, None] * products
        found = linprog(np.ones(2 * len(concepts)), A_ub=-np.hstack([bound, -bound]), b_ub=-gap, method="highs")
        if not found.success:
            raise BadInput(
                f"no shift meets all bounds at once in row {number}: these concepts are the same direction, or opposite"
            )
        lengths[number] = found.x[: len(concepts)] - found.x[len(concepts) :]
    after = 1 / (1 + np.exp(-((rows + lengths @ directions) @ weights.T + bias)))
    gram = directions @ directions.T
    return JointShift(torch.tensor(lengths), torch.tensor(after), float(np.linalg.cond(gram)))
