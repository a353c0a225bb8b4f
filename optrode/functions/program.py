"""A tree as a list of tensor operations: each distinct node once, in order, numbers folded.

Everything is computed in float32 or wider and rounded once to the dtype of the input.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from .differentiate import differentiate
from .expression import CONDITIONS, Call, Expression, Name, Number, nodes
from .ranges import needs_guard


@dataclass(frozen=True, eq=False)
class Program:
    """What computes an expression of `x` and of `parameters` on tensors. Make it with `program`."""

    expression: Expression
    parameters: tuple[str, ...]
    _steps: tuple[tuple[Callable[..., Any], tuple[int, ...]], ...]
    _constants: tuple[float, ...]

    def __call__(self, x: Tensor, values: Sequence[Tensor]) -> Tensor:
        """`x` and the values must have one floating point dtype of 32 bits or more; the shape is x's."""
        found: list[Any] = [x, *values, *(torch.tensor(c, dtype=x.dtype, device=x.device) for c in self._constants)]
        for function, places in self._steps:
            found.append(function(*(found[place] for place in places)))
        result = found[self._result]
        shape = torch.broadcast_shapes(x.shape, result.shape)
        return result if result.shape == shape else result.expand(shape)

    @property
    def _result(self) -> int:
        if self._steps:
            return len(self.parameters) + len(self._constants) + len(self._steps)
        return self._alone

    @property
    def _alone(self) -> int:
        """Where a lone name or number stands."""
        if isinstance(self.expression, Name):
            return ("x", *self.parameters).index(self.expression.name)
        return 1 + len(self.parameters)

    def derivative(self, by: str = "x") -> Program:
        return program(differentiate(self.expression, by), self.parameters)


@cache
def program(expression: Expression, parameters: tuple[str, ...]) -> Program:
    """Compile. `parameters` names what the expression may use besides x, in the order of their values."""
    ordered = list(nodes(expression))
    constants = list(dict.fromkeys(node.value for node in ordered if isinstance(node, Number)))
    places = {constant: 1 + len(parameters) + number for number, constant in enumerate(constants)}
    at: dict[Expression, int] = {}
    steps: list[tuple[Callable[..., Any], tuple[int, ...]]] = []
    for node in ordered:
        if isinstance(node, Number):
            at[node] = places[node.value]
        elif isinstance(node, Name):
            at[node] = ("x", *parameters).index(node.name)
        elif isinstance(node, Call):
            steps.append((_operation(node), tuple(at[argument] for argument in node.arguments)))
            at[node] = len(parameters) + len(constants) + len(steps)
    return Program(expression, parameters, tuple(steps), tuple(constants))


def _operation(node: Call) -> Callable[..., Any]:
    if node.operation == "mul" and needs_guard(*node.arguments):
        return _guarded_mul
    if node.operation == "pow" and isinstance(node.arguments[1], Number):
        exponent = node.arguments[1].value
        return lambda u, v: torch.pow(u, exponent)
    if node.operation in CONDITIONS:
        return _CONDITIONS[node.operation]
    return TORCH[node.operation]


def _guarded_mul(u: Tensor, v: Tensor) -> Tensor:
    return torch.where((u == 0) | (v == 0), 0.0, u * v)


def _sech(u: Tensor) -> Tensor:
    e = torch.exp(-u.abs())
    return 2 * e / (1 + e * e)


def _softplus(u: Tensor) -> Tensor:
    return u.clamp(min=0) + torch.log1p(torch.exp(-u.abs()))


def _lncosh(u: Tensor) -> Tensor:
    """ln cosh u; near 0, where ln 2 would cancel, as ln(1 + 2 sinh^2(u/2))."""
    far = u.abs() + torch.log1p(torch.exp(-2 * u.abs())) - math.log(2)
    return torch.where(u.abs() < 1, torch.log1p(2 * torch.sinh(u.clamp(-1, 1) / 2) ** 2), far)


def _phi(u: Tensor) -> Tensor:
    return torch.exp(-0.5 * u * u) / math.sqrt(2 * math.pi)


def _normal_cdf(u: Tensor) -> Tensor:
    return 0.5 * torch.erfc(-u / math.sqrt(2))


def _hazard(u: Tensor) -> Tensor:
    """phi(u) / Phi(-u), which grows like u."""
    return math.sqrt(2 / math.pi) / torch.special.erfcx(u / math.sqrt(2))


def _hypot(u: Tensor, v: Tensor) -> Tensor:
    u, v = torch.broadcast_tensors(u, v)
    return torch.hypot(u, v)


TORCH: dict[str, Callable[..., Any]] = {
    "add": torch.add, "mul": torch.mul, "div": torch.div, "pow": torch.pow, "where": torch.where,
    "exp": torch.exp, "expm1": torch.expm1, "ln": torch.log, "log1p": torch.log1p, "sqrt": torch.sqrt,
    "hypot": _hypot, "abs": torch.abs, "sgn": torch.sign, "floor": torch.floor, "sin": torch.sin, "cos": torch.cos,
    "tan": torch.tan, "arctan": torch.atan, "arcsin": torch.asin, "asinh": torch.asinh, "sinh": torch.sinh,
    "cosh": torch.cosh, "sech": _sech, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "softplus": _softplus,
    "lncosh": _lncosh, "relu": torch.relu, "relu6": lambda u: u.clamp(0, 6),
    "elu": lambda u: torch.where(u > 0, u, torch.expm1(u)),
    "erf": torch.erf, "Phi": _normal_cdf, "phi": _phi, "hazard": _hazard,
    "sinc": lambda u: torch.where(u == 0, 1.0, torch.sin(u) / u), "Gamma": lambda u: torch.exp(torch.lgamma(u)),
    "digamma": torch.digamma, "max": torch.maximum, "min": torch.minimum,
}  # fmt: skip

_CONDITIONS: dict[str, Callable[..., Any]] = {
    "lt": torch.lt, "le": torch.le, "eq": torch.eq, "and": torch.logical_and, "not": torch.logical_not,
}  # fmt: skip
