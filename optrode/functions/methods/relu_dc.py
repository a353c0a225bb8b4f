"""What ReLU does to spectra (DC is all you need: describing ReLU from a signal processing standpoint,
arXiv 2407.16556)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ...errors import BadInput
from ..protocol import Function
from ..spectrum import Line, Tones, cosines, lines, relu_series
from .protocol import ActivationMethod


@dataclass(frozen=True, eq=False)
class Expansion:
    """What `ReluDC.expand` gives: the series and ReLU itself on a signal, the amplitudes of the series' cosines by
    frequency, and the relative root mean square of the difference."""

    series: Tensor
    relu: Tensor
    spectrum: Tensor
    error: float


@dataclass(frozen=True)
class ReluDC(ActivationMethod):
    """ReLU as the paper's series: half the signal, and a polynomial in its square, which makes the constant term,
    harmonics and sums and differences of frequencies.

    `expand` compares it with ReLU on a sum of cosines; `lines` lists what any function adds to one; `module` computes
    with it. The amplitude of a signal in a network is not known beforehand, so the module takes the largest square of
    each example for the bound: ours. `terms` is the demo's N. Cost: `terms` products.
    """

    id: ClassVar[str] = "relu-dc"
    title: ClassVar[str] = "ReLU by its series"
    paper: ClassVar[str] = "2407.16556"

    terms: int = 50

    def __post_init__(self) -> None:
        if self.terms < 1:
            raise BadInput(f"the series has {self.terms} terms: take at least 1")

    @property
    def label(self) -> str:
        return f"ReLU by {self.terms} terms"

    def expand(self, tones: Tones) -> Expansion:
        """The series on a sum of cosines, beside ReLU."""
        signal = tones.signal()
        series, relu = relu_series(signal, tones.bound, self.terms), torch.relu(signal)
        error = float((series - relu).square().mean().sqrt() / relu.square().mean().sqrt())
        return Expansion(series, relu, cosines(series), error)

    def lines(self, tones: Tones, function: str | Function = "relu", order: int = 4) -> list[Line]:
        """What a function makes of a sum of cosines. See `optrode.functions.spectrum.lines`."""
        return lines(function, tones, order)

    def module(self, width: int, *, axis: int = -1) -> nn.Module:
        return SeriesReLU(self.terms)


class SeriesReLU(nn.Module):
    """ReLU by its series; the bound of each example, along the first axis, is its largest square."""

    def __init__(self, terms: int):
        super().__init__()
        self.terms = terms

    def forward(self, x: Tensor) -> Tensor:
        square = x.detach().square()
        bound = square.flatten(1).amax(1).reshape(-1, *[1] * (x.dim() - 1)) if x.dim() > 1 else square.amax()
        return relu_series(x, bound, self.terms)

    def extra_repr(self) -> str:
        return f"terms={self.terms}"
