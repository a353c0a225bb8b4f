"""Compositions of polynomials (PolyCom, arXiv 2411.03884): PolyReLU and PolyNorm."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from ...errors import BadInput, WrongShape, did_you_mean
from ..module import Activation
from ..zoo import get
from .protocol import ActivationMethod, parameters_of

FORMS = {"norm": "PolyNorm", "relu": "PolyReLU"}


@dataclass(frozen=True)
class PolyCom(ActivationMethod):
    """A polynomial of order 3 composed with ReLU or with a norm, its coefficients trained for each layer.

    form: `norm`, sum a_i N(x^i) + b with N(u) = u / rms(u) over the features, or `relu`, sum a_i relu(x)^i. All a_i
    start at 1/3, the constant at 0. It stands between two linear layers without a gate, so that the hidden size is 4
    times the width where SwiGLU's is 8/3. PolyNorm mixes the features: an edit of one neuron moves all outputs.
    decayed: whether weight decay takes hold of the coefficients; the paper does not say, the default leaves them alone.
    """

    id: ClassVar[str] = "polycom"
    title: ClassVar[str] = "PolyCom"
    paper: ClassVar[str] = "2411.03884"

    form: str = "norm"
    decayed: bool = False

    @property
    def label(self) -> str:
        return FORMS.get(self.form, self.title)

    def module(self, width: int, *, axis: int = -1) -> nn.Module:
        if self.form not in FORMS:
            raise BadInput(f"form '{self.form}' is none: {did_you_mean(self.form, FORMS)}")
        return get(FORMS[self.form]).module(width, axis=axis)

    def without_decay(self, network: nn.Module) -> Iterable[nn.Parameter]:
        if self.decayed:
            return ()
        return parameters_of(network, Activation)


def from_checkpoint(weight: Tensor, bias: Tensor) -> Activation:
    """A PolyNorm with the numbers of the authors' code, whose weight [3] is in the order cubic, square, linear.

    Raises `WrongShape`.

    >>> from_checkpoint(torch.tensor([3.0, 2.0, 1.0]), torch.zeros(1)).a
    Parameter containing:
    tensor([1., 2., 3.], requires_grad=True)
    """
    if weight.shape != (3,) or bias.numel() != 1:
        raise WrongShape(f"PolyNorm has 3 weights and a bias, not {list(weight.shape)} and {list(bias.shape)}")
    return get("PolyNorm").module(parameters={"a": weight.flip(0), "b": bias.reshape(())})
