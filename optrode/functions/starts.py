"""The usual initialisations of weights, as methods: what every published one has to beat."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..errors import BadInput, did_you_mean
from .initialisation import draw, fan_in, weighted_layers
from .methods.protocol import ActivationMethod
from .moments import curve_of
from .protocol import Function

# What `torch.nn.init.calculate_gain` says; 1 for functions that it does not know.
TORCH_GAINS = {"tanh": 5 / 3, "ReLU": math.sqrt(2), "SELU": 3 / 4}


@dataclass(frozen=True)
class Started(ActivationMethod):
    """A function with one of the usual starts.

    start: `torch` (as layers come), `xavier` (Glorot and Bengio 2010, gain 1), `torch gain` (Xavier times
    the gain that torch lists), `he` (1502.01852), `orthogonal` (1312.6120, gain 1) or `siren` (2006.09661: uniform,
    1/fan-in first, then sqrt(6/fan-in)/omega). All biases zero but those of torch and of siren, which stay.
    """

    role: ClassVar[str] = "baseline"

    function: str | Function = "relu"
    start: str = "torch"
    omega: float = 30.0
    per: str = "layer"

    def __post_init__(self) -> None:
        if self.start not in STARTS:
            raise BadInput(f"there is no start '{self.start}': {did_you_mean(self.start, STARTS)}")

    @property
    def label(self) -> str:
        return f"{self.start}, {curve_of(self.function).name}"

    def module(self, width: int, *, axis: int = -1) -> nn.Module:
        return curve_of(self.function).module(width, per=self.per, axis=axis)

    def initialise(self, network: nn.Module, example: Tensor) -> None:
        start = STARTS[self.start]
        for number, module in enumerate(weighted_layers(network, example) if start else ()):
            assert start is not None
            start(self, module, number)


def _xavier(method: Started, module: nn.Module, number: int, gain: float = 1.0) -> None:
    weight = module.weight
    assert isinstance(weight, Tensor)
    nn.init.xavier_normal_(weight, gain)
    _no_bias(module)


def _torch_gain(method: Started, module: nn.Module, number: int) -> None:
    _xavier(method, module, number, TORCH_GAINS.get(curve_of(method.function).name, 1.0))


def _he(method: Started, module: nn.Module, number: int) -> None:
    draw(module, math.sqrt(2))


def _orthogonal(method: Started, module: nn.Module, number: int) -> None:
    weight = module.weight
    assert isinstance(weight, Tensor)
    nn.init.orthogonal_(weight)
    _no_bias(module)


def _siren(method: Started, module: nn.Module, number: int) -> None:
    weight, inputs = module.weight, fan_in(module)
    assert isinstance(weight, Tensor)
    end = math.sqrt(6 / inputs) / method.omega if number else 1 / inputs
    with torch.no_grad():
        weight.uniform_(-end, end)


def _no_bias(module: nn.Module) -> None:
    if isinstance(module.bias, Tensor):
        nn.init.zeros_(module.bias)


STARTS: dict[str, Callable[[Started, nn.Module, int], None] | None] = {
    "torch": None, "xavier": _xavier, "torch gain": _torch_gain, "he": _he, "orthogonal": _orthogonal,
    "siren": _siren,
}  # fmt: skip
