"""The analytic profile of an activation function (GELU Activation Function in Deep Learning, arXiv 2305.12073)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...parts.method import Method
from ..profiling import Profile, profile
from ..protocol import Function


@dataclass(frozen=True)
class ActivationProfile(Method):
    """Bounds of derivatives, stationary points, Lipschitz and smoothness constants, and moments of any function.

    interval: where extremes and roots are looked for. deviation: of the normal input of the moments. See
    `optrode.functions.profile`.

    >>> round(ActivationProfile().fit("gelu").smoothness, 4)
    0.7979
    """

    id: ClassVar[str] = "gelu-analysis"
    title: ClassVar[str] = "activation profile"
    paper: ClassVar[str] = "2305.12073"

    interval: tuple[float, float] = (-10.0, 10.0)
    deviation: float = 1.0

    def fit(self, function: str | Function) -> Profile:
        return profile(function, self.interval, deviation=self.deviation)
