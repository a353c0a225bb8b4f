"""How the parameters of random elementwise functions are drawn in training; the list has the values of evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from .protocol import Context

Values = Mapping[str, Tensor]

# Evaluation values that the list does not state as one number: the mean of U(1/8, 1/3).
EVALUATION = {"S-RReLU": {"a": 11 / 48}}


def _neuron(x: Tensor) -> Tensor:
    """One number per neuron, the same for all examples."""
    return x[:1] if x.dim() > 1 else x


def _uniform(name: str, low: float, high: float, per: Callable[[Tensor], Tensor] = lambda x: x):  # type: ignore[no-untyped-def]
    return lambda x, values, context: {name: context.uniform(per(x), low, high)}


def _normal(name: str, deviation: float, per: Callable[[Tensor], Tensor] = lambda x: x):  # type: ignore[no-untyped-def]
    return lambda x, values, context: {name: deviation * context.normal(per(x))}


def _elastic(x: Tensor, values: Values, context: Context) -> dict[str, Tensor]:
    return {"k": 1 + values["r"] * context.uniform(_neuron(x), -1, 1)}


def _noisy(x: Tensor, values: Values, context: Context) -> dict[str, Tensor]:
    return {"n": torch.sigmoid(x.detach()).sqrt() * context.normal(x)}


def _eacu(x: Tensor, values: Values, context: Context) -> dict[str, Tensor]:
    s = 1 + 0.1 * context.normal(x)
    return {"b": torch.where((s > 0.5) & (s < 1.5), s, 1.0)}


def _eelu(x: Tensor, values: Values, context: Context) -> dict[str, Tensor]:
    """k ~ N(1, s^2) cut to [0, 2], s ~ U(0, 0.15), the middle of the paper's upper ends."""
    s = context.uniform(x.new_empty(()), 0, 0.15)
    return {"k": (1 + s * context.normal(_neuron(x))).clamp(0, 2)}


def _bernoulli(x: Tensor, values: Values, context: Context) -> dict[str, Tensor]:
    return {"m": (context.uniform(x) < values["p"]).to(x.dtype)}


DRAWS: dict[str, Callable[[Tensor, Values, Context], dict[str, Tensor]]] = {
    "RReLU": _uniform("a", 3, 8),
    "S-RReLU": _uniform("a", 1 / 8, 1 / 3, _neuron),
    "NReLU": _noisy,
    "RT-ReLU": _normal("n", 0.75, _neuron),
    "RT-PReLU": _normal("n", 0.75, _neuron),
    "EReLU": _elastic,
    "EPReLU": _elastic,
    "EACU": _eacu,
    "EELU": _eelu,
    "PATS": _uniform("a", 0.5, 0.75),
    "StochA": _bernoulli,
}
