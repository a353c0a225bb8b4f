"""Gates that may leave [0, 1] (Expanded Gating Ranges Improve Activation Functions, arXiv 2405.20768)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from ...errors import BadInput, did_you_mean
from ..module import Activation
from ..of_formula import from_formula
from ..zoo import get
from .protocol import ActivationMethod, parameters_of

GATES = {"gelu": ("xGELU", "Phi(x)"), "silu": ("xSiLU", "sigmoid(x)"), "arctan": ("xATLU", "(arctan(x)/pi+1/2)")}
FORMS = ("self-gated", "gate")


@dataclass(frozen=True)
class ExpandedGate(ActivationMethod):
    """x G(x) with the gate G = g(x) (1 + 2 alpha) - alpha, alpha trained from 0 for each layer, without weight decay.

    gate: `gelu` (the normal distribution function), `silu` (sigmoid) or `arctan`. form: `self-gated`, x G(x), which in
    a gated feed-forward makes a gated unit of the second order; `gate`, G(x) alone, which makes one of the first.
    trainable: False keeps alpha, where 0 is GELU, SiLU or ATLU. For alpha > 0 outputs far left grow as alpha |x|.
    """

    id: ClassVar[str] = "expanded-gating"
    title: ClassVar[str] = "expanded gate"
    paper: ClassVar[str] = "2405.20768"

    gate: str = "gelu"
    form: str = "self-gated"
    alpha: float = 0.0
    trainable: bool = True

    @property
    def label(self) -> str:
        name = GATES[self.gate][0] if self.gate in GATES else self.title
        return name if self.form == "self-gated" else f"{name} gate"

    def module(self, width: int, *, axis: int = -1) -> nn.Module:
        if self.gate not in GATES:
            raise BadInput(f"gate '{self.gate}' is none: {did_you_mean(self.gate, GATES)}")
        if self.form not in FORMS:
            raise BadInput(f"form '{self.form}' is none: {did_you_mean(self.form, FORMS)}")
        name, formula = GATES[self.gate]
        function = (
            get(name)
            if self.form == "self-gated"
            else from_formula(f"{formula}*(1+2*a)-a", parameters={"a": 0.0}, name=self.label)
        )
        return function.module(axis=axis, parameters={"a": self.alpha}, trainable=self.trainable)

    def without_decay(self, network: nn.Module) -> Iterable[nn.Parameter]:
        return parameters_of(network, Activation)
