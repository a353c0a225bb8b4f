"""Covariance of the units of one site, and between the units of two."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from ..errors import BadInput
from .accumulator import Accumulator
from .rows import Rows

# Rows that are multiplied at once; a longer product has a larger rounding error.
_ROWS = 1024


class Covariance(Accumulator):
    """Covariance matrix of the units (of the population), and their mean.

    Products are taken in float32 of rows from which the mean of their portion was taken, and added in float64 by the
    pairwise rule of Chan, Golub and LeVeque (1983), so that a mean far from zero costs no digits. An entry is within
    `1e-5 * sqrt(variance_i * variance_j)` of the true one, whatever the order; the last bits depend on it. For the
    diagonal alone `Moments` is exact and much cheaper.

    Costs 2 x unit operations a value; 8 x unit² bytes.

    >>> covariance = Covariance(2)
    >>> covariance.update(torch.tensor([[1.0, 2.0], [3.0, 6.0]]))
    >>> covariance.result()["covariance"]
    tensor([[1., 2.],
            [2., 4.]], dtype=torch.float64)
    """

    kind = "covariance"

    def __init__(self, shape: int | Sequence[int] = ()):
        super().__init__(shape)
        self._mean = torch.zeros(self.units, dtype=torch.float64)
        self._products = torch.zeros(self.units, self.units, dtype=torch.float64)
        self._rows = 0

    @classmethod
    def least(cls, shape: Sequence[int], **settings: Any) -> int:
        return prod(shape) ** 2

    def result(self) -> dict[str, Tensor]:
        n = self._rows or float("nan")
        matrix = (self._products / n).reshape(*self.shape, *self.shape)
        return {"mean": self._shaped(self._mean * (n / n)), "covariance": matrix}

    def _add(self, rows: Rows) -> None:
        for part in rows.parts(_ROWS):
            mean, products = _centred_products(part.values, part.values)
            self._join(len(part), mean[0], products)

    def _merge(self, other: Covariance) -> None:
        self._join(other._rows, other._mean, other._products)

    def _join(self, rows: int, mean: Tensor, products: Tensor) -> None:
        if not rows:
            return
        total = self._rows + rows
        step = mean - self._mean
        self._products += products
        self._products.addr_(step, step, alpha=self._rows * rows / total)
        self._mean += step * (rows / total)
        self._rows = total

    def _tensors(self) -> dict[str, Tensor]:
        return {"mean": self._mean, "products": self._products}

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        self._mean.copy_(tensors["mean"])
        self._products.copy_(tensors["products"])
        self._rows = self.count


class CrossMoments:
    """Covariance between the units of two sites over the same rows, and the mean of each.

    Bounds and costs as in `Covariance`. A row that holds NaN or infinity at either site is left out at both.

    >>> cross = CrossMoments(1, 1)
    >>> cross.update(torch.tensor([[1.0], [3.0]]), torch.tensor([[2.0], [6.0]]))
    >>> cross.result()["covariance"]
    tensor([[2.]], dtype=torch.float64)
    """

    kind = "cross"

    def __init__(self, first: int | Sequence[int], second: int | Sequence[int]):
        self.first, self.second = (
            (shape,) if isinstance(shape, int) else tuple(map(int, shape)) for shape in (first, second)
        )
        a, b = prod(self.first), prod(self.second)
        self.count = self.skipped = 0
        self._means = [torch.zeros(size, dtype=torch.float64) for size in (a, b)]
        self._squares = [torch.zeros(size, dtype=torch.float64) for size in (a, b)]
        self._products = torch.zeros(a, b, dtype=torch.float64)

    def update(self, first: Tensor, second: Tensor, mask: Tensor | None = None) -> None:
        """Add rows: `first` [..., *first], `second` [..., *second]; `mask` (bool [...]) says which of them count."""
        outer = first.shape[: first.dim() - len(self.first)]
        if second.shape[: second.dim() - len(self.second)] != outer:
            raise BadInput("both sites must come with the same rows")
        finite = torch.isfinite(first).flatten(len(outer)).all(-1) & torch.isfinite(second).flatten(len(outer)).all(-1)
        wanted = torch.ones(outer, dtype=torch.bool) if mask is None else mask.to(finite.device)
        keep = wanted.to(finite.device) & finite
        self.skipped += int((wanted.to(finite.device) & ~finite).sum())
        a, b = (Rows.of(values, shape, keep) for values, shape in ((first, self.first), (second, self.second)))
        for left, right in zip(a.parts(_ROWS), b.parts(_ROWS), strict=True):
            if len(left):
                means, products = _centred_products(left.values, right.values)
                squares = [_squares(part.values, mean) for part, mean in ((left, means[0]), (right, means[1]))]
                self._join(len(left), means, squares, products)

    def merge(self, other: CrossMoments) -> CrossMoments:
        """What one of all the data would be; both stay as they are. Raises `BadInput` for other shapes."""
        if (self.first, self.second) != (other.first, other.second):
            raise BadInput("cross-moments of other sites cannot be merged")
        merged = CrossMoments(self.first, self.second)
        for part in (self, other):
            merged._join(part.count, part._means, part._squares, part._products)
        merged.skipped = self.skipped + other.skipped
        return merged

    def result(self) -> dict[str, Tensor]:
        """`covariance` and `correlation` [*first, *second], and `first_mean`, `second_mean`."""
        n = self.count or float("nan")
        shape = (*self.first, *self.second)
        scale = torch.outer(*(squares.sqrt() for squares in self._squares))
        return {
            "covariance": (self._products / n).reshape(shape),
            "correlation": (self._products / scale).reshape(shape),
            "first_mean": (self._means[0] * (n / n)).reshape(self.first),
            "second_mean": (self._means[1] * (n / n)).reshape(self.second),
        }

    def described(self) -> dict[str, object]:
        return {"kind": self.kind, "shapes": [list(self.first), list(self.second)]}

    def state_dict(self) -> dict[str, Tensor]:
        parts = {"means": self._means, "squares": self._squares}
        tensors = {f"{name}_{number}": value for name, pair in parts.items() for number, value in enumerate(pair)}
        return {"rows": torch.tensor([self.count, self.skipped]), "products": self._products, **tensors}

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        self.count, self.skipped = (int(number) for number in tensors["rows"])
        self._products.copy_(tensors["products"])
        for number in (0, 1):
            self._means[number].copy_(tensors[f"means_{number}"])
            self._squares[number].copy_(tensors[f"squares_{number}"])

    def _join(self, rows: int, means: Sequence[Tensor], squares: Sequence[Tensor], products: Tensor) -> None:
        if not rows:
            return
        total = self.count + rows
        steps = [mean - own for mean, own in zip(means, self._means, strict=True)]
        share = self.count * rows / total
        self._products += products
        self._products.addr_(steps[0], steps[1], alpha=share)
        for number, step in enumerate(steps):
            self._squares[number] += squares[number] + step**2 * share
            self._means[number] += step * (rows / total)
        self.count = total

    def __repr__(self) -> str:
        return f"CrossMoments({list(self.first)}, {list(self.second)}; {self.count:,} rows)"


def _centred_products(first: Tensor, second: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Means of the columns of both, and the products of what is left of them when the means are taken away; float64."""
    means = first.mean(0, dtype=torch.float64), second.mean(0, dtype=torch.float64)
    near = [mean.float() for mean in means]
    left = first - near[0]
    right = left if second is first else second - near[1]
    products = (left.T @ right).double()
    # What rounding the means to float32 left in.
    rests = [mean - taken.double() for mean, taken in zip(means, near, strict=True)]
    return means, products.addr_(rests[0], rests[1], alpha=-float(len(first)))


def _squares(values: Tensor, mean: Tensor) -> Tensor:
    return (values.double() - mean).square_().sum(0)
