"""Conditions: what is read from a prompt, once and row by row, to decide whether an edit acts on it.

A condition takes the mean of one site over some tokens of the prompt, makes a number of it (a `Measure`) and compares
that with a threshold. Conditions are combined with `&`, `|` and `~`, which mean what they say.

>>> import torch
>>> asked = condition("layers.2.out", torch.ones(8), threshold=0.5)
>>> print(~asked | asked)
weight . mean of layers.2.out over prompt <= 0.5 or weight . mean of layers.2.out over prompt > 0.5
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..errors import BadInput, NotFinite, did_you_mean
from ..positions import Positions

COMPARISONS = {">": torch.gt, ">=": torch.ge, "<": torch.lt, "<=": torch.le}
_OPPOSITE = {">": "<=", ">=": "<", "<": ">=", "<=": ">"}


# Measures -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Measure:
    """Base of all measures: a function of one vector per row, [row, width] -> [row].

    A new measure is one frozen dataclass here; its fields are tensors, so that it can be saved.
    """

    name: ClassVar[str] = ""
    says: ClassVar[str] = ""

    def __call__(self, pooled: Tensor) -> Tensor:
        raise NotImplementedError

    def tensors(self) -> dict[str, Tensor]:
        return {item.name: getattr(self, item.name) for item in fields(self)}

    def like(self, h: Tensor) -> Measure:
        """The same measure on the device and in the precision of an activation."""
        return replace(self, **{name: value.to(h.device, h.dtype) for name, value in self.tensors().items()})

    def __post_init__(self) -> None:
        for name, value in self.tensors().items():
            if not bool(torch.isfinite(value.detach()).all()):
                raise NotFinite(f"the {name} of a condition holds NaN or infinity: check the data it was fitted on")


@dataclass(frozen=True, eq=False)
class Linear(Measure):
    """weight . h: with a logistic probe and threshold -bias, whether it says yes. `weight` is [width]."""

    weight: Tensor
    name: ClassVar[str] = "linear"
    says: ClassVar[str] = "weight . {}"

    def __call__(self, pooled: Tensor) -> Tensor:
        return pooled @ self.weight


@dataclass(frozen=True, eq=False)
class Cosine(Measure):
    """The cosine of h and `weight`, [width]."""

    weight: Tensor
    name: ClassVar[str] = "cosine"
    says: ClassVar[str] = "cosine of weight and {}"

    def __call__(self, pooled: Tensor) -> Tensor:
        return torch.cosine_similarity(pooled, self.weight, dim=-1)


@dataclass(frozen=True, eq=False)
class ProjectedCosine(Measure):
    """The cosine of h and tanh(P h), where P h is the projection of h on `weight`, [width].

    The similarity of conditional activation steering (arXiv 2409.05907, equation 2).
    """

    weight: Tensor
    name: ClassVar[str] = "projected_cosine"
    says: ClassVar[str] = "cosine of x and tanh of its projection on weight, where x is {},"

    def __call__(self, pooled: Tensor) -> Tensor:
        along = (pooled @ self.weight / (self.weight @ self.weight))[:, None] * self.weight
        return torch.cosine_similarity(pooled, torch.tanh(along), dim=-1)


MEASURES: dict[str, type[Measure]] = {kind.name: kind for kind in (Linear, Cosine, ProjectedCosine)}


# Conditions -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Conditions:
    """Base of conditions and of what is combined from them."""

    def leaves(self) -> tuple[Condition, ...]:
        """The single conditions, in order."""
        raise NotImplementedError

    def holds(self, met: Mapping[Condition, Tensor]) -> Tensor:
        """Where it holds, bool [row], when it is known of each single condition."""
        raise NotImplementedError

    def __and__(self, other: Conditions) -> AllOf:
        return AllOf((*_flat(self, AllOf), *_flat(other, AllOf)))

    def __or__(self, other: Conditions) -> AnyOf:
        return AnyOf((*_flat(self, AnyOf), *_flat(other, AnyOf)))

    def __invert__(self) -> Conditions:
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Condition(Conditions):
    """`measure` of the mean of `site` over `positions` of the prompt, compared with `threshold`.

    `fires` is the comparison under which it is met: `>`, `>=`, `<` or `<=`; it is kept as it is written, so that
    nobody has to remember which side a flag meant. `site` selects one site with a token axis.
    """

    site: str
    measure: Measure
    threshold: float = 0.0
    fires: str = ">"
    positions: Positions = field(default_factory=lambda: Positions("prompt"))

    def __post_init__(self) -> None:
        if self.fires not in COMPARISONS:
            raise BadInput(f"fires={self.fires!r} is no comparison: use one of {', '.join(COMPARISONS)}")
        if not math.isfinite(self.threshold):
            raise NotFinite(f"a condition cannot have threshold {self.threshold}: give a finite number")

    def leaves(self) -> tuple[Condition, ...]:
        return (self,)

    def holds(self, met: Mapping[Condition, Tensor]) -> Tensor:
        return met[self]

    def met(self, values: Tensor) -> Tensor:
        """Which values meet it, bool of the same shape."""
        return COMPARISONS[self.fires](values, self.threshold)

    def __invert__(self) -> Condition:
        return replace(self, fires=_OPPOSITE[self.fires])

    def __str__(self) -> str:
        says = self.measure.says.format(f"mean of {self.site} over {self.positions}")
        return f"{says} {self.fires} {self.threshold:.4g}"


@dataclass(frozen=True, eq=False)
class AllOf(Conditions):
    """Met where every part is."""

    parts: tuple[Conditions, ...]

    def leaves(self) -> tuple[Condition, ...]:
        return tuple(leaf for part in self.parts for leaf in part.leaves())

    def holds(self, met: Mapping[Condition, Tensor]) -> Tensor:
        return torch.stack([part.holds(met) for part in self.parts]).all(0)

    def __invert__(self) -> AnyOf:
        return AnyOf(tuple(~part for part in self.parts))

    def __str__(self) -> str:
        return " and ".join(f"({part})" if isinstance(part, AnyOf) else str(part) for part in self.parts)


@dataclass(frozen=True, eq=False)
class AnyOf(Conditions):
    """Met where any part is."""

    parts: tuple[Conditions, ...]

    def leaves(self) -> tuple[Condition, ...]:
        return tuple(leaf for part in self.parts for leaf in part.leaves())

    def holds(self, met: Mapping[Condition, Tensor]) -> Tensor:
        return torch.stack([part.holds(met) for part in self.parts]).any(0)

    def __invert__(self) -> AllOf:
        return AllOf(tuple(~part for part in self.parts))

    def __str__(self) -> str:
        return " or ".join(f"({part})" if isinstance(part, AllOf) else str(part) for part in self.parts)


def condition(
    site: str,
    weight: Any,
    *,
    threshold: float = 0.0,
    fires: str = ">",
    positions: str | Positions = "prompt",
    measure: str = "linear",
) -> Condition:
    """A condition on the mean of `site` over tokens of the prompt; see `when`.

    `weight` [width]; `measure` is `linear` (weight . mean), `cosine` or `projected_cosine`. A fitted probe gives all of
    it: `condition(probe.site, probe.weight, threshold=-probe.bias, positions=probe.positions)`.
    Raises `BadInput` for an unknown measure or comparison.
    """
    if measure not in MEASURES:
        raise BadInput(f"measure '{measure}' is not known: {did_you_mean(measure, MEASURES)}")
    vector = weight.detach() if isinstance(weight, Tensor) else torch.as_tensor(weight, dtype=torch.float32)
    if vector.dim() != 1:
        raise BadInput(f"the weight of a condition has shape {tuple(vector.shape)}: it must be [width]")
    chosen = positions if isinstance(positions, Positions) else Positions(positions)
    return Condition(site, MEASURES[measure](vector), float(threshold), fires, chosen)  # type: ignore[call-arg]


def _flat(one: Conditions, kind: type) -> tuple[Conditions, ...]:
    return one.parts if isinstance(one, kind) else (one,)  # type: ignore[attr-defined]
