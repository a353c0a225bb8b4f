"""What every function of the zoo is, whether it came from a formula or is built: `Function`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import BadInput, UnknownName, did_you_mean
from .table import Parameter, Row

if TYPE_CHECKING:
    from .module import Activation

Value = Any


@dataclass
class Context:
    """What a call knows besides the input: its mode, where random numbers come from, and running statistics.

    `state` holds the running statistics by name; in training a function may write into its tensors.
    """

    training: bool = False
    generator: torch.Generator | None = None
    state: Mapping[str, Tensor] = field(default_factory=dict)

    def uniform(self, like: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
        drawn = torch.rand(like.shape, generator=self.generator, dtype=like.dtype, device=like.device)
        return low + (high - low) * drawn

    def normal(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=self.generator, dtype=like.dtype, device=like.device)


@dataclass(frozen=True, eq=False)
class Function:
    """An activation function: called on tensors, differentiated, made into a module, described.

    `row` says where it comes from. Random functions follow their stored rule of evaluation unless a call says
    `training=True`; with the same `generator` state they draw the same numbers.
    """

    row: Row

    @property
    def name(self) -> str:
        return self.row.name

    @property
    def aliases(self) -> tuple[str, ...]:
        return self.row.aliases

    @property
    def formula(self) -> str:
        return self.row.formula

    @property
    def source(self) -> str:
        return self.row.source

    @property
    def confidence(self) -> str:
        """How sure the list is of formula and defaults: high, medium or low."""
        return self.row.confidence

    @property
    def elementwise(self) -> bool:
        return self.row.elementwise

    @property
    @abstractmethod
    def parameters(self) -> dict[str, Parameter] | dict[str, Value]:
        """Parameters with their defaults."""

    @property
    @abstractmethod
    def random(self) -> bool:
        """Whether training mode draws random numbers."""

    @abstractmethod
    def evaluate(self, x: Tensor, values: Mapping[str, Tensor], context: Context) -> Tensor:
        """The function with a tensor for every parameter."""

    @abstractmethod
    def initial(self, width: int | None = None) -> dict[str, Tensor]:
        """The default of every parameter as a float64 tensor; some need the number of features."""

    def state(self, width: int | None = None) -> dict[str, Tensor]:
        """Running statistics as they start; empty for most functions."""
        return {}

    def trained(self, name: str) -> bool:
        """Whether papers train this parameter."""
        return False

    def derivative(self, x: Tensor, **values: float | Tensor) -> Tensor:
        """df/dx at x: what the backward pass multiplies with, a surrogate where the function has one. Elementwise
        functions only; raises `BadInput` for others, whose derivative is a matrix."""
        raise BadInput(f"{self.name} mixes elements, so its derivative is no number for each: use torch.func.jacrev")

    def __call__(
        self,
        x: Tensor,
        *,
        training: bool = False,
        generator: torch.Generator | None = None,
        **values: float | Tensor,
    ) -> Tensor:
        """f(x); parameters that are not given have their defaults, tensors broadcast against x.

        >>> import optrode as op, torch
        >>> op.functions.get("leaky relu")(torch.tensor([-2.0, 2.0]), a=0.1)
        tensor([-0.2000,  2.0000])
        """
        full = self._values(x, values)
        state = {key: value.to(x.device, _wide(x)) for key, value in self.state(self._width(x)).items()}
        return self.evaluate(x, full, Context(training, generator, state))

    def _values(self, x: Tensor, values: Mapping[str, float | Tensor]) -> dict[str, Tensor]:
        if not (x.is_floating_point() or x.is_complex()):
            raise BadInput(f"{self.name} takes floating point numbers, not {x.dtype}")
        full: dict[str, Any] = dict(self.initial(self._width(x)))
        for name, value in values.items():
            if name not in full:
                raise UnknownName(f"{self.name} has no parameter '{name}': {did_you_mean(name, full)}")
            full[name] = value
        # A number is taken in full precision: by itself torch would round it to float32.
        return {
            name: value.to(x.device, _wide(x)) if isinstance(value, Tensor) else _number(value, x)
            for name, value in full.items()
        }

    def _width(self, x: Tensor) -> int:
        """Number of features of an input."""
        return x.shape[-1] if x.dim() else 1

    def module(self, width: int | tuple[int, ...] | None = None, **settings: Any) -> Activation:
        """An `nn.Module`. See `optrode.functions.module.Activation` for its settings."""
        from .module import Activation

        return Activation(self, width, **settings)

    def __repr__(self) -> str:
        return f"{self.name}: {self.formula}"


def _number(value: Value, x: Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=_wide(x), device=x.device)


def _wide(x: Tensor) -> torch.dtype:
    real = x.dtype.to_real()
    return torch.promote_types(real, torch.float32)
