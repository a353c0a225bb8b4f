"""Padé activation units (arXiv 1907.06732): ratios of polynomials whose coefficients are trained with the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import BadInput, did_you_mean
from ..built.primitives import polynomial
from ..module import Activation
from ..zoo import get
from .protocol import ActivationMethod, parameters_of

VERSIONS = {"A": "PAU version A", "B": "safe PAU", "C": "", "D": "RPAU", "N": "PAU"}
# The start that the authors' repository has for leaky ReLU, version A.
PUBLISHED = (
    (0.0335583603, 0.505000375, 1.65343934, 2.01001052, 0.931901999, 0.152424124),
    (3.30847488e-06, 3.98021568, 5.12471206e-07, 0.301830109),
)
_END, _FLOOR = 3.0, 0.1


@dataclass(frozen=True)
class PAU(ActivationMethod):
    """P(x) / Q(x) with degrees 5 and 4, one set of ten coefficients for each layer.

    version: A, Q = 1 + sum |b_k x^k| (the authors' code); B, Q = 1 + |sum b_k x^k| (the paper); C, Q = 0.1 + |b_0 +
    sum b_k x^k|; D, B with every coefficient off by up to `noise` of itself in training (RPAU); N, Q = 1 + sum b_k x^k,
    which may have poles. start: a function of the zoo that is fitted on [-3, 3], or `published`, the authors'
    coefficients for leaky ReLU (version A). trainable: False keeps the start. Coefficients take no weight decay.
    """

    id: ClassVar[str] = "pau"
    title: ClassVar[str] = "PAU"
    paper: ClassVar[str] = "1907.06732"

    version: str = "A"
    start: str = "leaky relu"
    noise: float = 0.1
    trainable: bool = True

    @property
    def label(self) -> str:
        return f"{self.title}-{self.version}" + ("" if self.trainable else " frozen")

    def module(self, width: int, *, axis: int = -1) -> nn.Module:
        if self.version not in VERSIONS:
            raise BadInput(f"version '{self.version}' is none: {did_you_mean(self.version, VERSIONS)}")
        above, below = self.coefficients()
        if self.version == "C":
            return FlooredRational(above, below, self.trainable)
        found = get(VERSIONS[self.version]).module(axis=axis, parameters={"a": above, "b": below}, trainable=False)
        if self.version == "D":
            found.register_buffer("r", torch.tensor(self.noise))
        return trained(found, ("a", "b")) if self.trainable else found

    def coefficients(self) -> tuple[Tensor, Tensor]:
        """Numerator [6] and denominator [4], or [5] in version C, from the constant term on."""
        if self.start == "published":
            if self.version != "A":
                raise BadInput("the published coefficients are those of version A")
            return torch.tensor(PUBLISHED[0]), torch.tensor(PUBLISHED[1])
        return fitted(self.version, self.start)

    def without_decay(self, network: nn.Module) -> Iterable[nn.Parameter]:
        return parameters_of(network, Activation, FlooredRational)


def trained(module: Activation, names: Iterable[str]) -> Activation:
    """The module with some of its fixed parameters trained."""
    for name in names:
        value = getattr(module, name)
        del module._buffers[name]
        module.register_parameter(name, nn.Parameter(value))
    return module


class FlooredRational(nn.Module):
    """Version C: the denominator has a constant of its own and a floor of 0.1."""

    def __init__(self, above: Tensor, below: Tensor, trainable: bool):
        super().__init__()
        self.a = nn.Parameter(above.clone(), requires_grad=trainable)
        self.b = nn.Parameter(below.clone(), requires_grad=trainable)

    def forward(self, x: Tensor) -> Tensor:
        return polynomial(x, self.a) / (_FLOOR + polynomial(x, self.b).abs())


@cache
def fitted(version: str, name: str) -> tuple[Tensor, Tensor]:
    """Coefficients by least squares on 601 points of [-3, 3], for the version's own denominator."""
    function = get(name)
    x = np.linspace(-_END, _END, 601)
    wanted = function(torch.from_numpy(x)).numpy()
    return fit_points(version, x, wanted)


def fit_points(version: str, x: np.ndarray, wanted: np.ndarray) -> tuple[Tensor, Tensor]:
    """Coefficients that come close to the points, by Levenberg and Marquardt's method from a linear fit."""
    from scipy.optimize import least_squares

    first = np.linalg.lstsq(np.stack([x**j for j in range(6)], -1), wanted, rcond=None)[0]
    constant = [1 - _FLOOR] if version == "C" else []
    below = _denominator(version)
    powers = np.stack([x**j for j in range(6)], -1)

    def miss(values: np.ndarray) -> np.ndarray:
        return powers @ values[:6] / below(x, values[6:]) - wanted  # type: ignore[no-any-return]

    found = least_squares(miss, np.concatenate([first, constant, [0.01, 0.5, 0.01, 0.05]]), max_nfev=2000).x
    return torch.tensor(found[:6], dtype=torch.float32), torch.tensor(found[6:], dtype=torch.float32)


def _denominator(version: str) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    def powers(x: np.ndarray, b: np.ndarray, first: int) -> np.ndarray:
        return np.stack([b[k] * x ** (k + first) for k in range(len(b))])

    return {
        "A": lambda x, b: 1 + np.abs(powers(x, b, 1)).sum(0),
        "B": lambda x, b: 1 + np.abs(powers(x, b, 1).sum(0)),
        "C": lambda x, b: _FLOOR + np.abs(powers(x, b, 0).sum(0)),
        "D": lambda x, b: 1 + np.abs(powers(x, b, 1).sum(0)),
        "N": lambda x, b: 1 + powers(x, b, 1).sum(0),
    }[version]
