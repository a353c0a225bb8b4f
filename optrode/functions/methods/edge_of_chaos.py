"""Initialisation on the edge of chaos (On the Impact of the Activation Function on Deep Neural Networks Training,
arXiv 1902.06853)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from ...errors import BadInput
from ..chaos import Edge, edge
from ..initialisation import draw, weighted_layers
from ..moments import curve_of
from ..protocol import Function
from .protocol import ActivationMethod


@dataclass(frozen=True)
class EdgeOfChaos(ActivationMethod):
    """Weights N(0, sigma_w^2 / fan-in) and biases N(0, sigma_b^2) at which small differences keep their size.

    function: by name, or of your own. bias_deviation: sigma_b; sigma_w follows from it, see `optrode.functions.edge`.
    The paper advises a small one for smooth functions; ReLU and its kin have an edge at 0 alone, where this is He's
    initialisation. Where the variance has a fixed point, the first layer is scaled to start there, whatever the size of
    the inputs: ours, since it can be unstable (SiLU); the authors' code multiplies the inputs by sqrt(q).
    Cost: about 0.1 s, and one forward.
    """

    id: ClassVar[str] = "edge-of-chaos"
    title: ClassVar[str] = "edge of chaos"
    paper: ClassVar[str] = "1902.06853"

    function: str | Function = "tanh"
    bias_deviation: float = 0.2
    per: str = "layer"

    @property
    def label(self) -> str:
        return f"edge of chaos, {curve_of(self.function).name}, sigma_b {self.bias_deviation:g}"

    def point(self) -> Edge:
        """The point of the edge. Raises `BadInput` where the function has none for this sigma_b."""
        found = edge(self.function, self.bias_deviation)
        assert isinstance(found, Edge)
        if not found.usable:
            advice = ": set bias_deviation=0" if found.state == "diverging" and self.bias_deviation else ""
            raise BadInput(
                f"{curve_of(self.function).name} has no edge of chaos with biases of deviation "
                f"{self.bias_deviation:g} ({found.state}){advice}"
            )
        return found

    def module(self, width: int, *, axis: int = -1) -> nn.Module:
        return curve_of(self.function).module(width, per=self.per, axis=axis)

    def initialise(self, network: nn.Module, example: Tensor) -> None:
        """Every linear and convolutional module gets new weights and biases."""
        found = self.point()
        first = found.weight_deviation
        size = float(example.double().square().mean())
        if found.state == "regular" and size > 0:
            first = math.sqrt((found.variance - found.bias_deviation**2) / size)
        for number, module in enumerate(weighted_layers(network, example)):
            draw(module, found.weight_deviation if number else first, bias_deviation=found.bias_deviation)
