"""What an edit does to one activation: pure functions of the activation and fixed tensors.

Every operator gets `h`, shape [..., width] (or [..., head, width] at sites that have heads), float32 or wider, and
`index`, shape [...] int64: the running number of each position among those selected in its row. It returns the new
`h`. Position selection, strength, precision and receipts are the engine's business, never the operator's.

A new operator is one frozen dataclass here; it can be saved when all its fields are tensors or plain numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import NotFinite, NotSupported, WrongShape


@dataclass(frozen=True, eq=False)
class Operator:
    """Base of all operators. `name` is what a file calls it.

    `elementwise` says that the tensors have the axes of one activation: a number, [width] or [head, width].
    """

    name: ClassVar[str] = ""
    elementwise: ClassVar[bool] = False

    def __call__(self, h: Tensor, index: Tensor) -> Tensor:
        raise NotImplementedError

    def change(self, h: Tensor, index: Tensor) -> Tensor:
        """New value minus old; overridden where the change does not depend on `h`, which keeps strengths exact."""
        return self(h, index) - h

    def tensors(self) -> dict[str, Tensor]:
        """The tensors that travel in an edit file, by field name."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    def settings(self) -> dict[str, float]:
        """The plain numbers that travel in an edit file."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, int | float)}

    def to(self, device: torch.device, dtype: torch.dtype) -> Operator:
        """The same operator with its tensors on another device, in another precision."""
        moved = {name: value.to(device=device, dtype=dtype) for name, value in self.tensors().items()}
        return type(self)(**moved, **self.settings()) if moved else self

    def __post_init__(self) -> None:
        for name, value in self.tensors().items():
            if value.is_floating_point() and not bool(torch.isfinite(value.detach()).all()):
                raise NotFinite(f"the {name} of '{self.name}' holds NaN or infinity: check the data it was fitted on")


@dataclass(frozen=True, eq=False)
class Add(Operator):
    """h + vector. `vector` is [width], or [head, width] at a site with heads."""

    vector: Tensor
    name: ClassVar[str] = "add"
    elementwise: ClassVar[bool] = True

    def __call__(self, h: Tensor, index: Tensor) -> Tensor:
        return h + self.vector

    def change(self, h: Tensor, index: Tensor) -> Tensor:
        return self.vector.expand_as(h)


@dataclass(frozen=True, eq=False)
class AddByPosition(Operator):
    """h[p] + vectors[p]: another vector for each selected position of the row. `vectors` is [position, width].

    Positions beyond the last row of `vectors` are left as they are.
    """

    vectors: Tensor
    name: ClassVar[str] = "add_by_position"

    def __call__(self, h: Tensor, index: Tensor) -> Tensor:
        return h + self.change(h, index)

    def change(self, h: Tensor, index: Tensor) -> Tensor:
        count = self.vectors.shape[0]
        rows = self.vectors[index.clamp(max=count - 1)]
        rows = torch.where((index < count)[..., None], rows, torch.zeros_like(rows))
        # Heads, and the experts of a token, share the vector of their position.
        return rows.reshape(*index.shape, *[1] * (h.dim() - index.dim() - 1), rows.shape[-1])


@dataclass(frozen=True, eq=False)
class Scale(Operator):
    """h * factor; `factor` is a scalar tensor or [width]."""

    factor: Tensor
    name: ClassVar[str] = "scale"
    elementwise: ClassVar[bool] = True

    def __call__(self, h: Tensor, index: Tensor) -> Tensor:
        return h * self.factor


@dataclass(frozen=True, eq=False)
class ProjectOut(Operator):
    """h - (h Q^T) Q: removes the span of orthonormal rows `basis`, [rank, width].

    Strength -1 doubles the component, strength 2 reflects it. Use `project_out`, which orthonormalises for you.
    """

    basis: Tensor
    name: ClassVar[str] = "project_out"

    def __call__(self, h: Tensor, index: Tensor) -> Tensor:
        return h + self.change(h, index)

    def change(self, h: Tensor, index: Tensor) -> Tensor:
        return -(h @ self.basis.mT) @ self.basis


@dataclass(frozen=True, eq=False)
class Affine(Operator):
    """weight * h + bias, elementwise; both [width]."""

    weight: Tensor
    bias: Tensor
    name: ClassVar[str] = "affine"
    elementwise: ClassVar[bool] = True

    def __call__(self, h: Tensor, index: Tensor) -> Tensor:
        return self.weight * h + self.bias


@dataclass(frozen=True, eq=False)
class Replace(Operator):
    """value, whatever h was: zero and mean ablation, patching. `value` is a scalar tensor, [width] or [head, width]."""

    value: Tensor
    name: ClassVar[str] = "replace"
    elementwise: ClassVar[bool] = True

    def __call__(self, h: Tensor, index: Tensor) -> Tensor:
        return self.value.expand_as(h)


@dataclass(frozen=True, eq=False)
class Clamp(Operator):
    """min(max(h, low), high), elementwise; `low` and `high` are scalar tensors or [width]."""

    low: Tensor
    high: Tensor
    name: ClassVar[str] = "clamp"
    elementwise: ClassVar[bool] = True

    def __call__(self, h: Tensor, index: Tensor) -> Tensor:
        return torch.minimum(torch.maximum(h, self.low), self.high)

    def __post_init__(self) -> None:
        # Infinite bounds are meant: they leave one side open.
        if bool(torch.isnan(self.low).any() | torch.isnan(self.high).any()):
            raise NotFinite("a bound of 'clamp' is NaN: give numbers, or infinity to leave a side open")


@dataclass(frozen=True, eq=False)
class Knockout(Operator):
    """Minus infinity: a score that the softmax makes a weight of zero, so that the other weights make up for it."""

    name: ClassVar[str] = "knockout"

    def __call__(self, h: Tensor, index: Tensor) -> Tensor:
        return torch.full_like(h, -torch.inf)


@dataclass(frozen=True, eq=False)
class Function(Operator):
    """function(rows) -> rows of the same shape, [row, width] or [row, head, width]. Cannot be saved: it is code."""

    function: Callable[[Tensor], Tensor]
    name: ClassVar[str] = "function"

    def __call__(self, h: Tensor, index: Tensor) -> Tensor:
        # Rows whether or not a mask has made rows of them, so that padding does not change what the function gets.
        rows = h.flatten(0, index.dim() - 1)
        new = self.function(rows)
        if not isinstance(new, Tensor) or new.shape != rows.shape:
            got = tuple(new.shape) if isinstance(new, Tensor) else type(new).__name__
            raise WrongShape(f"the function of the edit returned {got} for rows of shape {tuple(rows.shape)}")
        return new.reshape(h.shape)


SAVEABLE: dict[str, type[Operator]] = {
    operator.name: operator for operator in (Add, AddByPosition, Scale, ProjectOut, Affine, Replace, Clamp, Knockout)
}


def orthonormal(directions: Tensor) -> Tensor:
    """Orthonormal rows spanning the rows of `directions` ([width] or [rank, width]).

    Raises `WrongShape` when they are linearly dependent or zero.
    """
    rows = directions.reshape(-1, directions.shape[-1]).to(torch.float64)
    left, singular, right = torch.linalg.svd(rows, full_matrices=False)
    too_many = rows.shape[0] > rows.shape[1]
    if too_many or bool(singular.min() <= 1e-6 * singular.max()) or not bool(singular.max() > 0):
        raise WrongShape("the directions to project out are zero or depend on each other: give independent ones")
    return (left @ right).to(directions.dtype)


def refuse_unsaveable(operator: Operator) -> None:
    if operator.name not in SAVEABLE:
        raise NotSupported(f"an edit with a '{operator.name}' operator cannot be saved: a file never holds code")
