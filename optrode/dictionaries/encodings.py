"""How the product of an activation and the encoder becomes features: one small class for each kind of dictionary.

Each takes the product [..., feature] and gives features of the same shape, none below zero.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

Own = TypeVar("Own", bound="Encoding")


@dataclass(frozen=True, eq=False)
class Encoding:
    """Base: tensors are [feature]."""

    def __call__(self, product: Tensor) -> Tensor:
        raise NotImplementedError

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by the name of their field."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    def to(self: Own, *arguments: Any) -> Own:
        """The same on another device or in another precision."""
        return replace(self, **{name: value.to(*arguments) for name, value in self.tensors().items()})


@dataclass(frozen=True, eq=False)
class Relu(Encoding):
    """relu(product + bias)."""

    bias: Tensor

    def __call__(self, product: Tensor) -> Tensor:
        return (product + self.bias).relu()


@dataclass(frozen=True, eq=False)
class TopK(Encoding):
    """The k largest of product + bias, negative ones as zero (arXiv 2406.04093, section 2.3).

    `norms`: what each feature is multiplied with before the k largest are chosen, and stays multiplied with; None for
    nothing. They are the lengths of the decoder's rows where these were left free.
    """

    bias: Tensor
    k: int
    norms: Tensor | None = None

    def __call__(self, product: Tensor) -> Tensor:
        before = product + self.bias
        if self.norms is not None:
            before = before * self.norms
        largest = before.topk(self.k, dim=-1)
        return torch.zeros_like(before).scatter(-1, largest.indices, largest.values.relu())


@dataclass(frozen=True, eq=False)
class Jump(Encoding):
    """product + bias where that is above the threshold, else zero (JumpReLU, arXiv 2407.14435, equation 3)."""

    bias: Tensor
    threshold: Tensor

    def __call__(self, product: Tensor) -> Tensor:
        before = product + self.bias
        return torch.where(before > self.threshold.relu(), before, torch.zeros_like(before))


@dataclass(frozen=True, eq=False)
class Gate(Encoding):
    """relu(scale * product + bias) where product + gate is above zero (arXiv 2404.16014, equations 6 and 7)."""

    gate: Tensor
    scale: Tensor
    bias: Tensor

    def __call__(self, product: Tensor) -> Tensor:
        size = (self.scale * product + self.bias).relu()
        return torch.where(product + self.gate > 0, size, torch.zeros_like(size))
