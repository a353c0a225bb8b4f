"""HeLU, a ReLU whose gradient passes a little below zero (arXiv 2411.10573)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from ...errors import BadInput
from ..zoo import get
from .protocol import ActivationMethod


@dataclass(frozen=True)
class HeLU(ActivationMethod):
    """Forward max(0, x); backward 1 where x > -alpha, else 0. In use it is ReLU, so that alpha costs nothing there.

    alpha: 0.05 in the paper's language models, 0.001 in its image models; 2 hurts, 0 is ReLU. It is absolute, so that
    it means little without a norm in front.

    >>> HeLU(alpha=0.5).module(4).a
    tensor(0.5000)
    """

    id: ClassVar[str] = "helu"
    title: ClassVar[str] = "HeLU"
    paper: ClassVar[str] = "2411.10573"

    alpha: float = 0.05

    @property
    def label(self) -> str:
        return f"{self.title} {self.alpha:g}"

    def module(self, width: int, *, axis: int = -1) -> nn.Module:
        if self.alpha < 0:
            raise BadInput(f"alpha is {self.alpha:g}: the gradient begins below zero, so it is at least 0")
        return get("helu").module(axis=axis, parameters={"a": self.alpha})
