"""What an edit does to one activation: pure functions of the activation and fixed tensors.

Every operator gets `h`, shape [..., width] (or [..., head, width] at sites that have heads), float32 or wider, and
`index`, shape [...] int64: the running number of each position among those selected in its row. It returns the new
`h`. Position selection, strength, precision and receipts are the engine's business, never the operator's.

A new operator is one frozen dataclass here; it can be saved when all its fields are tensors or plain numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..errors import NotFinite, NotSupported, WrongShape


@dataclass(frozen=True, eq=False)
class Operator:
    """Base of all operators. `name` is what a file calls it.

    `elementwise` says that the tensors have the axes of one activation: a number, [width] or [head, width]. `by_rank`
    names tensors whose last axis is a rank, not the width.
    """

    name: ClassVar[str] = ""
    elementwise: ClassVar[bool] = False
    by_rank: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # Before a dataclass writes its own, which would print every number of every tensor.
        cls.__repr__ = Operator.__repr__  # type: ignore[method-assign]

    def __repr__(self) -> str:
        shown = (f"{item.name}={_shown(getattr(self, item.name))}" for item in fields(self))
        return f"{type(self).__name__}({', '.join(shown)})"

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
        """The same operator with its tensors on another device, in another precision; itself where they are so."""
        own = self.tensors()
        moved = {name: value.to(device=device, dtype=dtype) for name, value in own.items()}
        same = all(value is own[name] for name, value in moved.items())
        return self if same else self.with_tensors(moved)

    def with_tensors(self, tensors: dict[str, Tensor]) -> Operator:
        """The same operator with other tensors, by field name."""
        return replace(self, **tensors)  # type: ignore[arg-type]

    @property
    def trained(self) -> bool:
        """Whether gradients of its tensors are wanted, so that they change between one forward and the next."""
        return any(value.requires_grad for value in self.tensors().values())

    def constrained(self) -> Operator:
        """The operator with its tensors put back where they have to be, differentiably: an optimiser leaves that."""
        return self

    def __post_init__(self) -> None:
        for name, value in self.tensors().items():
            if value.is_floating_point() and not bool(torch.isfinite(value.detach()).all()):
                raise NotFinite(f"the {name} of '{self.name}' holds NaN or infinity: check the data it was fitted on")


def _shown(value: Any) -> str:
    return f"{list(value.shape)}" if isinstance(value, Tensor) and value.dim() else repr(value)


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

    def constrained(self) -> ProjectOut:
        return ProjectOut(nearest_rows(self.basis))


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
class AffineWithin(Operator):
    """weight * h + bias where low < h < high, h elsewhere, elementwise; all [width]. Infinite bounds leave a side open.

    The linear map of activation transport (arXiv 2410.23054, definition 3.1): nothing is moved that the map was not
    fitted on.
    """

    weight: Tensor
    bias: Tensor
    low: Tensor
    high: Tensor
    name: ClassVar[str] = "affine_within"
    elementwise: ClassVar[bool] = True

    def __call__(self, h: Tensor, index: Tensor) -> Tensor:
        return torch.where((self.low < h) & (h < self.high), self.weight * h + self.bias, h)

    def __post_init__(self) -> None:
        for name, value in self.tensors().items():
            wrong = torch.isnan(value) if name in ("low", "high") else ~torch.isfinite(value.detach())
            if bool(wrong.any()):
                raise NotFinite(f"the {name} of '{self.name}' holds NaN or infinity: check the data it was fitted on")


@dataclass(frozen=True, eq=False)
class LowRank(Operator):
    """h + (down h + bias) up: a change of low rank. `down` and `up` are [rank, width], `bias` is [rank].

    The form of DiReFT (arXiv 2404.03592, equation 3).
    """

    down: Tensor
    up: Tensor
    bias: Tensor
    name: ClassVar[str] = "low_rank"
    by_rank: ClassVar[tuple[str, ...]] = ("bias",)

    def __call__(self, h: Tensor, index: Tensor) -> Tensor:
        return h + self.change(h, index)

    def change(self, h: Tensor, index: Tensor) -> Tensor:
        return (h @ self.down.mT + self.bias) @ self.up


@dataclass(frozen=True, eq=False)
class Subspace(Operator):
    """h + (weight h + bias - basis h) basis: within the span of orthonormal rows `basis`, h becomes weight h + bias.

    `basis` and `weight` are [rank, width], `bias` is [rank]. The form of LoReFT (arXiv 2404.03592, equation 2). Use
    `subspace`, which orthonormalises for you.
    """

    basis: Tensor
    weight: Tensor
    bias: Tensor
    name: ClassVar[str] = "subspace"
    by_rank: ClassVar[tuple[str, ...]] = ("bias",)

    def __call__(self, h: Tensor, index: Tensor) -> Tensor:
        return h + self.change(h, index)

    def change(self, h: Tensor, index: Tensor) -> Tensor:
        return (h @ (self.weight - self.basis).mT + self.bias) @ self.basis

    def constrained(self) -> Subspace:
        return Subspace(nearest_rows(self.basis), self.weight, self.bias)


@dataclass(frozen=True, eq=False)
class Gated(Operator):
    """h + sigmoid(gate . h + bias) vector: a vector that is added where a gate opens.

    `vector` and `gate` are [width], `bias` is a scalar tensor.
    """

    vector: Tensor
    gate: Tensor
    bias: Tensor
    name: ClassVar[str] = "gated"

    def __call__(self, h: Tensor, index: Tensor) -> Tensor:
        return h + self.change(h, index)

    def change(self, h: Tensor, index: Tensor) -> Tensor:
        return torch.sigmoid(h @ self.gate + self.bias)[..., None] * self.vector


@dataclass(frozen=True, eq=False)
class Reach(Operator):
    """h + (target - weight . h - bias) weight / |weight|^2: the smallest shift that makes weight . h + bias `target`.

    The shift is another for every token, and along `weight`. `side` 1 only raises the score, -1 only lowers it, so that
    a token that is there already stays bit-equal; 0 moves every token to the target. `weight` is [width], `bias` and
    `target` are scalar tensors. With a logistic probe and target logit(p) it is the edit of concept activation vectors
    (arXiv 2501.05764, equation 4). Use `reach`, which takes a probability.
    """

    weight: Tensor
    bias: Tensor
    target: Tensor
    side: float = 0.0
    name: ClassVar[str] = "reach"

    def __call__(self, h: Tensor, index: Tensor) -> Tensor:
        return h + self.change(h, index)

    def change(self, h: Tensor, index: Tensor) -> Tensor:
        length = shift_length(h, self.weight, self.bias, self.target, self.side)
        return (length / torch.linalg.vector_norm(self.weight))[..., None] * self.weight


@dataclass(frozen=True, eq=False)
class Replace(Operator):
    """value, whatever h was: zero and mean ablation, patching. `value` is a scalar tensor, [width] or [head, width]."""

    value: Tensor
    name: ClassVar[str] = "replace"
    elementwise: ClassVar[bool] = True

    def __call__(self, h: Tensor, index: Tensor) -> Tensor:
        # Numbers of its own, not a view of one of them: some networks add to this in place.
        return self.value.expand_as(h).clone()


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

    @property
    def trained(self) -> bool:
        """Whether it is a module whose parameters are being trained."""
        module = self.function if isinstance(self.function, nn.Module) else nn.Module()
        return any(parameter.requires_grad for parameter in module.parameters())

    def __call__(self, h: Tensor, index: Tensor) -> Tensor:
        # Rows whether or not a mask has made rows of them, so that padding does not change what the function gets.
        rows = h.flatten(0, index.dim() - 1)
        new = self.function(rows)
        if not isinstance(new, Tensor) or new.shape != rows.shape:
            got = tuple(new.shape) if isinstance(new, Tensor) else type(new).__name__
            raise WrongShape(f"the function of the edit returned {got} for rows of shape {tuple(rows.shape)}")
        return new.reshape(h.shape)


SAVEABLE: dict[str, type[Operator]] = {
    operator.name: operator
    for operator in (
        Add, AddByPosition, Scale, ProjectOut, Affine, AffineWithin, LowRank, Subspace, Gated, Reach, Replace, Clamp,
        Knockout,
    )
}  # fmt: skip


def shift_length(h: Tensor, weight: Tensor, bias: Tensor | float, target: Tensor | float, side: float) -> Tensor:
    """The signed length of the smallest shift of h, [..., width], that makes weight . h + bias `target`; see `Reach`.

    (target - bias - weight . h) / |weight|, and 0 where `side` says that h is there already. Shape [...].
    """
    gap = target - bias - h @ weight
    if side:
        gap = (gap * side).clamp(min=0) * side
    return gap / torch.linalg.vector_norm(weight)


def nearest_rows(rows: Tensor) -> Tensor:
    """Orthonormal rows with the same span, [rank, width]; rows that are orthonormal already stay where they are.

    Differentiable, by a QR decomposition in float32 or wider.
    """
    q, r = torch.linalg.qr(rows.mT)
    # Signs are free in a QR decomposition: keep those of the rows.
    return (q * torch.where(r.diagonal() < 0, -1.0, 1.0).to(q.dtype)).mT


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
