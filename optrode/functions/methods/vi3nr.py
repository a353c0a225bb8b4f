"""VI3NR (Variance Informed Initialization for Implicit Neural Representations, arXiv 2504.19270)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from ...errors import BadInput, NotFinite
from ..initialisation import draw, weighted_layers
from ..moments import curve_of, second_moment
from ..of_formula import FormulaFunction
from ..protocol import Function
from .protocol import ActivationMethod

# Deviations that are tried where none is given.
GRID = tuple(10 ** (step / 20 - 3) for step in range(91))


@dataclass(frozen=True)
class VI3NR(ActivationMethod):
    """Weights at which every pre-activation has deviation `deviation`, biases zero.

    gain^2 = deviation^2 / E[f(z)^2], z ~ N(0, deviation^2), and weights have deviation gain / sqrt(fan-in). The first
    layer takes the inputs' mean and deviation in place of f's moment. With `deviation=None`, the one between 0.001 and
    32 at which gradients keep their size best, which is where `balance` is 1 or nearest to it. The paper tunes around
    that value with a few iterations of training; for functions that are a line at 0, such as tanh, it is the smallest.

    Integrals are quadrature, where the official code draws a million random numbers. Cost: a second for the grid.
    """

    id: ClassVar[str] = "vi3nr"
    title: ClassVar[str] = "VI3NR"
    paper: ClassVar[str] = "2504.19270"

    function: str | Function = "tanh"
    deviation: float | None = None
    uniform: bool = False
    per: str = "layer"

    @property
    def label(self) -> str:
        at = f", sigma {self.deviation:.3g}" if self.deviation is not None else ""
        return f"VI3NR, {curve_of(self.function).name}{at}"

    def module(self, width: int, *, axis: int = -1) -> nn.Module:
        return curve_of(self.function).module(width, per=self.per, axis=axis)

    def gain(self) -> float:
        """The factor on weights of variance 1 / fan-in in all layers but the first. Raises `NotFinite`."""
        deviation = self.chosen()
        return deviation / math.sqrt(_moment(curve_of(self.function), deviation))

    def balance(self) -> float:
        """How much the variance of gradients grows in one layer, backwards: 1 is best."""
        return balance(self.function, self.chosen())

    def chosen(self) -> float:
        """The deviation of pre-activations, looked for where none was given. Raises `BadInput` for one below 0."""
        if self.deviation is None:
            return best_deviation(self.function)
        if not (math.isfinite(self.deviation) and self.deviation > 0):
            raise BadInput(f"the deviation of pre-activations is {self.deviation}: give a number above 0")
        return self.deviation

    def initialise(self, network: nn.Module, example: Tensor) -> None:
        """Every linear and convolutional module gets new weights, and biases of zero; `example` says how large inputs
        are."""
        gain = self.gain()
        first = self.chosen() / float(example.double().square().mean().sqrt())
        for number, module in enumerate(weighted_layers(network, example)):
            draw(module, gain if number else first, uniform=self.uniform)


def balance(function: str | Function, deviation: float) -> float:
    """deviation^2 E[f'(z)^2] / E[f(z)^2], z ~ N(0, deviation^2): the paper's condition on gradients is that it is 1.

    >>> round(balance("tanh", 1.0), 3), round(balance("relu", 1.0), 6)
    (1.178, 1.0)
    """
    f = curve_of(function)
    return deviation**2 * second_moment(f, deviation**2, 1) / _moment(f, deviation)


def best_deviation(function: str | Function) -> float:
    """The deviation at which `balance` is 1; of several, that nearest to 1. Where there is none, the one of `GRID` that
    comes nearest, as in the official code, and nearest to 1 among those that are equally good."""
    f = curve_of(function)
    grid = [one for one in GRID if _usable(f, one)]
    if not grid:
        raise NotFinite(f"the mean square of {f.name} under a normal input is 0 or infinite, so it has no gain")
    off = [_log_balance(f, one) for one in grid]
    pairs = zip(zip(grid, off, strict=True), zip(grid[1:], off[1:], strict=True), strict=False)
    found = [_crossing(f, low, high) for (low, a), (high, b) in pairs if min(abs(a), abs(b)) > 1e-6 and a * b < 0]
    if found:
        return min(found, key=lambda one: abs(math.log(one)))
    return min(zip(grid, off, strict=True), key=lambda one: (round(abs(one[1]), 6), abs(math.log(one[0]))))[0]


def _usable(f: FormulaFunction, deviation: float) -> bool:
    square = second_moment(f, deviation**2)
    return square > 0 and math.isfinite(square)


def _log_balance(f: FormulaFunction, deviation: float) -> float:
    return math.log(max(balance(f, deviation), 1e-300))


def _crossing(f: FormulaFunction, low: float, high: float) -> float:
    """Where the balance is 1 between two deviations, on one side of which it is below and on the other above."""
    below = _log_balance(f, low) < 0
    for _ in range(40):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if (_log_balance(f, middle) < 0) == below else (low, middle)
    return math.sqrt(low * high)


def _moment(f: FormulaFunction, deviation: float) -> float:
    square = second_moment(f, deviation**2)
    if not (math.isfinite(square) and square > 0):
        raise NotFinite(f"the mean square of {f.name} at deviation {deviation:g} is {square}, so it has no gain")
    return square
