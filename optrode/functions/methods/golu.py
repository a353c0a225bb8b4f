"""GoLU (Gompertz Linear Units, arXiv 2502.03654)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from ...errors import BadInput
from ..of_formula import from_formula
from ..zoo import get
from .protocol import ActivationMethod


@dataclass(frozen=True)
class GoLU(ActivationMethod):
    """x alpha exp(-beta exp(-gamma x)), a gate that is the distribution function of the Gumbel distribution at 1, 1, 1.

    None of the three is trained. beta and gamma are positive: with another sign nothing is a gate any more.

    >>> GoLU().module(4)
    Activation(ExpExpish, per='layer')
    """

    id: ClassVar[str] = "golu"
    title: ClassVar[str] = "GoLU"
    paper: ClassVar[str] = "2502.03654"

    alpha: float = 1.0
    beta: float = 1.0
    gamma: float = 1.0

    def module(self, width: int, *, axis: int = -1) -> nn.Module:
        if self.beta <= 0 or self.gamma <= 0:
            raise BadInput(f"beta {self.beta:g} and gamma {self.gamma:g}: the gate opens only where both are positive")
        if (self.alpha, self.beta, self.gamma) == (1.0, 1.0, 1.0):
            return get("golu").module(axis=axis)
        settings = {"a": self.alpha, "b": self.beta, "g": self.gamma}
        return from_formula("x*a*exp(-b*exp(-g*x))", parameters=settings, name="GoLU").module(
            axis=axis, trainable=False
        )
