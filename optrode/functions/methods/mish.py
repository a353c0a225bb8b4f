"""Mish (Mish: A Self Regularized Non-Monotonic Activation Function, arXiv 1908.08681)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from ...errors import BadInput, did_you_mean
from ..zoo import get
from .protocol import ActivationMethod

FORMS = {"exact": "mish", "hard": "hard mish"}


@dataclass(frozen=True)
class Mish(ActivationMethod):
    """x tanh(ln(1 + e^x)). form: `exact`, or `hard`, the piecewise x/2 min(2, max(0, x + 2)) of phones.

    >>> Mish().module(4)
    Activation(Mish, per='layer')
    """

    id: ClassVar[str] = "mish"
    title: ClassVar[str] = "Mish"
    paper: ClassVar[str] = "1908.08681"

    form: str = "exact"

    @property
    def label(self) -> str:
        return self.title if self.form == "exact" else f"{self.title} ({self.form})"

    def module(self, width: int, *, axis: int = -1) -> nn.Module:
        if self.form not in FORMS:
            raise BadInput(f"form '{self.form}' is none: {did_you_mean(self.form, FORMS)}")
        return get(FORMS[self.form]).module(axis=axis)
