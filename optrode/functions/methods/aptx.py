"""APTx (arXiv 2209.06119), which is Swish with other letters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from ..zoo import get
from .protocol import ActivationMethod


@dataclass(frozen=True)
class APTx(ActivationMethod):
    """(alpha + tanh(beta x)) gamma x; with alpha 1 and gamma 1/2 exactly x sigmoid(2 beta x).

    trainable: whether the three are trained, one each for a layer. See `as_swish` for the conversion.

    >>> APTx().as_swish()
    (1.0, 2.0)
    """

    id: ClassVar[str] = "aptx"
    title: ClassVar[str] = "APTx"
    paper: ClassVar[str] = "2209.06119"

    alpha: float = 1.0
    beta: float = 1.0
    gamma: float = 0.5
    trainable: bool = False

    @property
    def label(self) -> str:
        return f"{self.title} (trained)" if self.trainable else self.title

    def module(self, width: int, *, axis: int = -1) -> nn.Module:
        settings = {"a": self.alpha, "b": self.beta, "g": self.gamma}
        return get("aptx").module(axis=axis, parameters=settings, trainable=self.trainable)

    def as_swish(self) -> tuple[float, float] | None:
        """Scale c and slope s of the same function c x sigmoid(s x); None where alpha is not 1, which is no Swish."""
        return (2 * self.gamma, 2 * self.beta) if self.alpha == 1 else None
