"""`@builds("GLU")`: enters what computes a row of the list, with the starting values of its parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from ...errors import BadInput
from ..protocol import Context, Function
from ..table import rows

# A number, some numbers, or what gives a tensor for a number of features.
Initial = float | Sequence[float] | Callable[[int], Tensor]
Body = Callable[[Tensor, Any, "Call"], Tensor]

_registered: dict[str, BuiltFunction] = {}


@dataclass
class Call(Context):
    """What a body knows of a call. `base` is the free function of rows that have one."""

    base: Callable[[Tensor], Tensor] = torch.relu


@dataclass(frozen=True, eq=False, repr=False)
class BuiltFunction(Function):
    """A function whose body is code. Features stand on the last axis of what the body gets, unless `keeps_axes`."""

    body: Body = field(kw_only=True)
    starts: dict[str, Initial] = field(default_factory=dict)
    fixed: frozenset[str] = frozenset()
    statistics: dict[str, Initial] = field(default_factory=dict)
    draws: bool = False
    keeps_axes: bool = False
    base: Callable[[Tensor], Tensor] | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        """Starting values; a size in place of those that depend on the number of features."""
        return {name: "by width" if callable(value) else value for name, value in self.starts.items()}

    @property
    def random(self) -> bool:
        return self.draws

    def trained(self, name: str) -> bool:
        return name not in self.fixed

    def initial(self, width: int | None = None) -> dict[str, Tensor]:
        return {name: self._start(name, value, width) for name, value in self.starts.items()}

    def state(self, width: int | None = None) -> dict[str, Tensor]:
        return {name: self._start(name, value, width) for name, value in self.statistics.items()}

    def _start(self, name: str, value: Initial, width: int | None) -> Tensor:
        if callable(value):
            if width is None:
                raise BadInput(f"the size of '{name}' of {self.name} depends on the width: module(width)")
            return value(width).to(torch.float64)
        return torch.tensor(value, dtype=torch.float64)

    def of(self, base: str | Callable[[Tensor], Tensor]) -> BuiltFunction:
        """The same frame over another free function, given by name or as a function of tensors.

        Raises `BadInput` where the row has none.
        """
        if self.base is None:
            raise BadInput(f"{self.name} has no free function to replace")
        if isinstance(base, str):
            from ..zoo import get

            return replace(self, base=get(base))
        return replace(self, base=base)

    def evaluate(self, x: Tensor, values: Mapping[str, Tensor], context: Context) -> Tensor:
        wide = x if x.is_complex() else x.to(torch.promote_types(x.dtype, torch.float32))
        call = Call(context.training, context.generator, context.state, self.base or torch.relu)
        result = self.body(wide, SimpleNamespace(**values), call)
        return result if x.is_complex() or result.dtype == torch.bool else result.to(x.dtype)

    def _width(self, x: Tensor) -> int:
        return x.shape[1] if self.keeps_axes and x.dim() > 1 else x.shape[-1] if x.dim() else 1


def builds(
    name: str,
    *,
    fixed: Sequence[str] = (),
    statistics: Mapping[str, Initial] | None = None,
    random: bool = False,
    keeps_axes: bool = False,
    base: Callable[[Tensor], Tensor] | None = None,
    **starts: Initial,
) -> Callable[[Body], Body]:
    """Enter a body as the function of row `name`. `fixed` names the parameters that are not trained."""

    def enter(body: Body) -> Body:
        _registered[name] = BuiltFunction(
            rows()[name], body=body, starts=dict(starts), fixed=frozenset(fixed), statistics=dict(statistics or {}),
            draws=random, keeps_axes=keeps_axes, base=base,
        )  # fmt: skip
        return body

    return enter


def registered() -> dict[str, BuiltFunction]:
    return _registered
