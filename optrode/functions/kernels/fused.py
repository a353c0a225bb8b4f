"""An elementwise function in one pass over memory each way, beside the operations of torch that it stands for.

It is taken for large plain tensors on the CPU, and keeps its input alone for the backward pass. Whatever it does not
know is computed by `optrode.functions.elementwise`: derivatives of derivatives, transforms of `torch.func`, tracing,
parameters that are no single numbers, arguments too large for a sine, and a function that float32 is too
short for.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..expression import Expression
from .loops import NotCompiled, gradients_loop, values_loop
from .machine import Compiled, available
from .threads import pieces, together

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..elementwise import Elementwise

# Elements from which it pays, the compilation of some 10 ms aside.
LARGE = 1 << 15
_DTYPES = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bfloat16"}
_PLAIN = (Tensor, torch.nn.Parameter)
_STEP = 32


def fits(function: Elementwise, x: Tensor, values: Sequence[Tensor]) -> bool:
    """Whether `fused` can stand for the function here."""
    return (
        x.numel() >= LARGE
        and not _transformed()
        and x.dtype in _DTYPES
        and not function.double
        and x.device.type == "cpu"
        and type(x) in _PLAIN
        and _dense(x)
        and all(value.numel() == 1 and value.dim() <= x.dim() and type(value) in _PLAIN for value in values)
        and available()
        and _values(function.forward.expression, function.forward.parameters, _DTYPES[x.dtype]) is not None
    )


def fused(function: Elementwise, x: Tensor, values: Sequence[Tensor]) -> Tensor:
    """f(x) in the dtype of x. Arguments must be such that `fits`."""
    return _Fused.apply(function, x, *values)  # type: ignore[no-any-return]


def _dense(x: Tensor) -> bool:
    return x.is_contiguous() or (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last))


def _transformed() -> bool:
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()  # type: ignore[no-untyped-call]
        or torch._C._functorch.peek_interpreter_stack() is not None
    )


@lru_cache(maxsize=64)
def _values(expression: Expression, parameters: tuple[str, ...], dtype: str) -> Compiled | None:
    try:
        return Compiled(values_loop("values", expression, parameters, dtype), "values")
    except NotCompiled:
        return None


@lru_cache(maxsize=64)
def _gradients(by: tuple[Expression | None, ...], parameters: tuple[str, ...], dtype: str) -> Compiled | None:
    try:
        return Compiled(gradients_loop("gradients", by[0], by[1:], parameters, dtype), "gradients")
    except NotCompiled:
        return None


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(function: Elementwise, x: Tensor, *values: Tensor) -> Tensor:
        loop = _values(function.forward.expression, function.forward.parameters, _DTYPES[x.dtype])
        assert loop is not None
        result = torch.empty_like(x)
        if _run(loop, x, None, result, values)[0]:
            return function.plain(x, values)
        return result

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.function = inputs[0]
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *values = ctx.saved_tensors
        needed = ctx.needs_input_grad[1:]
        if not torch.is_grad_enabled() and type(grad) is Tensor and not _transformed():
            found = _backward(ctx.function, grad, x, values, needed)
            if found is not None:
                return (None, *found)
        return (None, *ctx.function.gradients(grad, x, values, needed))


def _backward(
    function: Elementwise, grad: Tensor, x: Tensor, values: Sequence[Tensor], needed: Sequence[bool]
) -> list[Tensor | None] | None:
    by = tuple(function.by(place).forward.expression if need else None for place, need in enumerate(needed))
    loop = _gradients(by, function.forward.parameters, _DTYPES[x.dtype])
    if loop is None:
        return None
    if grad.stride() != x.stride():
        grad = torch.empty_like(x).copy_(grad)
    result = torch.empty_like(x) if needed[0] else None
    beyond, sums = _run(loop, x, grad, result, values)
    if beyond:
        return None
    found: list[Tensor | None] = [result]
    for value, need, total in zip(values, needed[1:], sums, strict=True):
        found.append(value.new_full(value.shape, total) if need else None)
    return found


def _run(
    loop: Compiled, x: Tensor, grad: Tensor | None, result: Tensor | None, values: Sequence[Tensor]
) -> tuple[int, list[float]]:
    """Fill `result`. Gives whether an argument was out of reach, and the sums for the parameters."""
    count, size = x.numel(), x.element_size()
    whole = count - count % _STEP
    parts = pieces(whole, _STEP)
    parameters = (ctypes.c_double * max(1, len(values)))(*(float(value.detach()) for value in values))
    sums = [(ctypes.c_double * max(1, len(values)))() for _ in range(len(parts) + 1)]
    places = [_address(tensor) for tensor in (x, grad, result)]

    def work(number: int, start: int, end: int) -> int:
        moved = (place and place + start * size for place in places)
        return loop(*moved, end - start, ctypes.addressof(parameters), ctypes.addressof(sums[number]))

    beyond = together(work, parts)
    if whole < count:
        beyond |= _rest(loop, x, grad, result, whole, ctypes.addressof(parameters), ctypes.addressof(sums[-1]))
    return beyond, [sum(one[place] for one in sums) for place in range(len(values))]


def _rest(
    loop: Compiled, x: Tensor, grad: Tensor | None, result: Tensor | None, start: int, parameters: int, sums: int
) -> int:
    """The elements behind the last whole step, in a step of their own that is filled up with the last of them."""
    flat = _flat(x)[start:]
    filled = flat[-1].repeat(_STEP)
    filled[: flat.numel()] = flat
    weights = None
    if grad is not None:
        weights = torch.zeros_like(filled)
        weights[: flat.numel()] = _flat(grad)[start:]
    found = torch.empty_like(filled) if result is not None else None
    beyond = loop(_address(filled), _address(weights), _address(found), _STEP, parameters, sums)
    if result is not None and found is not None:
        _flat(result)[start:] = found[: flat.numel()]
    return beyond


def _flat(tensor: Tensor) -> Tensor:
    """Its elements as they lie in memory."""
    return tensor.detach().as_strided((tensor.numel(),), (1,))


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
