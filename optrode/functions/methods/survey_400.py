"""Any function of the survey's list (Three Decades of Activations, arXiv 2402.09092)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from ..zoo import get
from .protocol import ActivationMethod


@dataclass(frozen=True)
class ListedFunction(ActivationMethod):
    """The function of a name, with the parameters that its paper trains.

    per: one set of parameters for a `layer` or for each `channel`.

    >>> ListedFunction("softsign").label
    'softsign'
    """

    id: ClassVar[str] = "survey-400"
    title: ClassVar[str] = "function of the survey"
    paper: ClassVar[str] = "2402.09092"

    function: str = "logistic"
    per: str = "layer"

    @property
    def label(self) -> str:
        return get(self.function).name

    def module(self, width: int, *, axis: int = -1) -> nn.Module:
        return get(self.function).module(width, per=self.per, axis=axis)
