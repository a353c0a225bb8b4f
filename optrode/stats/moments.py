"""Mean, variance, skewness and kurtosis of each unit, from sums that are never rounded."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan

import numpy as np
import torch
from torch import Tensor

from ..errors import BadInput
from .accumulator import Accumulator
from .exact import UNIT, ExactSum, add_powers
from .rows import Rows


class Moments(Accumulator):
    """The first `order` moments of each unit (2: mean and variance; 3 and 4 add skewness and kurtosis).

    Sums of powers are kept as whole numbers (`optrode.stats.exact`), so that results are bit-equal whatever the
    batches, shards and order of merging, however far the mean is from zero. `mean` and `variance` are the exact ones,
    rounded once to float64. The variance is that of the population (divided by the count); `kurtosis` is 0 for a normal
    distribution. Both are NaN for a unit that never varies.

    Costs about 2 (order 2) or 6 (order 4) nanoseconds a value on two cores; 90 bytes a unit and order.

    >>> moments = Moments(1, order=4)
    >>> moments.update(torch.tensor([[10001.0], [10002.0], [10003.0], [10006.0]]))
    >>> {name: round(value.item(), 4) for name, value in moments.result().items()}
    {'mean': 10003.0, 'variance': 3.5, 'skewness': 0.6872, 'kurtosis': -1.0}
    """

    kind = "moments"
    settings = ("order",)

    def __init__(self, shape: int | Sequence[int] = (), order: int = 2):
        super().__init__(shape)
        if order not in (1, 2, 3, 4):
            raise BadInput(f"there are moments of order 1 to 4, not {order}")
        self.order = order
        self._sums = [ExactSum(self.units, power) for power in range(1, order + 1)]

    def result(self) -> dict[str, Tensor]:
        n = self.count
        names = ("mean", "variance", "skewness", "kurtosis")[: self.order]
        if not n:
            return {name: self._shaped(np.full(self.units, nan)) for name in names}
        sums = [total.totals() for total in self._sums]
        central = [_divided(numerator, n**power, power) for power, numerator in enumerate(_numerators(n, sums), 1)]
        found = {"mean": central[0]}
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.order > 1:
                found["variance"] = central[1]
            if self.order > 2:
                found["skewness"] = central[2] / central[1] ** 1.5
            if self.order > 3:
                found["kurtosis"] = central[3] / central[1] ** 2 - 3.0
        return {name: self._shaped(value) for name, value in found.items()}

    def _add(self, rows: Rows) -> None:
        add_powers(self._sums, rows)

    def _merge(self, other: Moments) -> None:
        for mine, theirs in zip(self._sums, other._sums, strict=True):
            mine.merge(theirs)

    def _tensors(self) -> dict[str, Tensor]:
        for total in self._sums:
            total.carry()
        return {f"sum_{total.power}": torch.from_numpy(total.limbs.copy()) for total in self._sums}

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        for total in self._sums:
            limbs = tensors[f"sum_{total.power}"].numpy()
            if limbs.shape != total.limbs.shape or limbs.dtype != np.int64:
                raise ValueError("sums of another shape")
            total.limbs = limbs.copy()


def _numerators(n: int, sums: list[np.ndarray]) -> list[np.ndarray]:
    """The mean times n, and the central moments times n to their power; whole numbers."""
    first = sums[0]
    found = [first]
    if len(sums) > 1:
        found.append(n * sums[1] - first**2)
    if len(sums) > 2:
        found.append(n**2 * sums[2] - 3 * n * first * sums[1] + 2 * first**3)
    if len(sums) > 3:
        found.append(n**3 * sums[3] - 4 * n**2 * first * sums[2] + 6 * n * first**2 * sums[1] - 3 * first**4)
    return found


def _divided(numerators: np.ndarray, divisor: int, power: int) -> np.ndarray:
    """Whole numbers in units of `2**(UNIT * power)` over `divisor`, each rounded once (Python's own division does)."""
    divisor <<= -UNIT * power
    return np.array([_quotient(number, divisor) for number in numerators.tolist()], np.float64)


def _quotient(number: int, divisor: int) -> float:
    try:
        return number / divisor
    except OverflowError:
        return float("inf") if number > 0 else float("-inf")
