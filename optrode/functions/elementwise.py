"""An expression as an operation that autograd knows: it keeps its input alone and has every derivative by formula."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from .expression import Expression
from .kernels.fused import fits, fused
from .program import Program, program


@dataclass(frozen=True, eq=False)
class Elementwise:
    """A forward expression, and the one that stands for its derivative by x: its own, or a surrogate."""

    forward: Program
    backward: Program | None = None
    double: bool = False

    def __call__(self, x: Tensor, values: Sequence[Tensor]) -> Tensor:
        """Values must broadcast against x. float16 and bfloat16 are computed in float32 and rounded once."""
        wide = self._wide(x)
        values = [value.to(device=x.device, dtype=wide) for value in values]
        if fits(self, x, values):
            return fused(self, x, values)
        return _Operation.apply(self, x.to(wide), *values).to(x.dtype)  # type: ignore[no-any-return]

    def _wide(self, x: Tensor) -> torch.dtype:
        return torch.float64 if self.double else torch.promote_types(x.dtype, torch.float32)

    def plain(self, x: Tensor, values: Sequence[Tensor]) -> Tensor:
        """The same by operations of torch, whatever the size, without a gradient."""
        return self.forward(x.to(self._wide(x)), values).to(x.dtype)

    def gradients(
        self, grad: Tensor, x: Tensor, values: Sequence[Tensor], needed: Sequence[bool]
    ) -> list[Tensor | None]:
        """What a backward pass hands to x and to the values, by operations that can be differentiated again."""
        wide = self._wide(x)
        grad, inner = grad.to(wide), x.to(wide)
        found: list[Tensor | None] = []
        for place, one in enumerate((x, *values)):
            slope = _Operation.apply(self.by(place), inner, *values) if needed[place] else None
            found.append(None if slope is None else (grad * slope).sum_to_size(one.shape).to(one.dtype))
        return found

    def by(self, place: int) -> Elementwise:
        """The derivative by x (place 0) or by a parameter."""
        return _derivative(self, place)


@cache
def _derivative(function: Elementwise, place: int) -> Elementwise:
    if place == 0 and function.backward is not None:
        return Elementwise(function.backward, double=function.double)
    return Elementwise(function.forward.derivative(("x", *function.forward.parameters)[place]), double=function.double)


def elementwise(
    forward: Expression, parameters: tuple[str, ...], backward: Expression | None = None, *, double: bool = False
) -> Elementwise:
    """`double` computes in float64 whatever the input's dtype is."""
    surrogate = program(backward, parameters) if backward is not None else None
    return Elementwise(program(forward, parameters), surrogate, double)


class _Operation(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(function: Elementwise, x: Tensor, *values: Tensor) -> Tensor:
        result = function.forward(x, values)
        return result.clone() if result is x else result.contiguous()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.function = inputs[0]
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *values = ctx.saved_tensors
        return (None, *ctx.function.gradients(grad, x, values, ctx.needs_input_grad[1:]))
