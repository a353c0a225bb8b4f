"""One formula of Mittag-Leffler functions for the usual activations (arXiv 2302.11007)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ...errors import BadInput, did_you_mean
from .protocol import ActivationMethod, parameters_of

FORMS = ("tanh", "mish", "sigmoid", "swish", "softsign", "gelu", "relu", "elu")
# Forms whose ratio of two series has a second index that moves the curve.
ADAPTIVE = ("tanh", "mish")
_TERMS = 120


@dataclass(frozen=True)
class MittagLefflerUnit(ActivationMethod):
    """x^gamma E_{a1,b1}(f(x)) / E_{a2,b2}(g(x)), the row of the paper's table that `form` names.

    b2: second index of the lower function, for `tanh` (E_{2,2}(x^2) over E_{2,b2}(x^2); 1 is tanh, 2 is a line) and
    `mish`. trainable: whether b2 is trained, one for each layer; it stays above 0 by a softplus. slope: of
    swish. Every form equals its usual function at the table's values; ratios are taken as differences of logarithms of
    series with positive terms, so that none overflows. GELU's row is our derivation.

    Cost: tanh and mish take 120 terms for each number.
    """

    id: ClassVar[str] = "mittag-leffler"
    title: ClassVar[str] = "Mittag-Leffler"
    paper: ClassVar[str] = "2302.11007"

    form: str = "tanh"
    b2: float = 1.0
    trainable: bool = True
    slope: float = 1.0

    @property
    def label(self) -> str:
        trained = self.trainable and self.form in ADAPTIVE
        return f"{self.title} {self.form}" + (", b2 trained" if trained else "")

    def module(self, width: int, *, axis: int = -1) -> nn.Module:
        if self.form not in FORMS:
            raise BadInput(f"form '{self.form}' is none: {did_you_mean(self.form, FORMS)}")
        if self.b2 <= 0:
            raise BadInput(f"b2 is {self.b2:g}: the series has positive terms only for b2 above 0")
        return MittagLefflerModule(self)

    def without_decay(self, network: nn.Module) -> Iterable[nn.Parameter]:
        return parameters_of(network, MittagLefflerModule)


class MittagLefflerModule(nn.Module):
    """One layer of it. `b2` is softplus(raw)."""

    def __init__(self, method: MittagLefflerUnit):
        super().__init__()
        self.method = method
        trained = method.trainable and method.form in ADAPTIVE
        self.raw = nn.Parameter(torch.tensor(math.log(math.expm1(method.b2))), requires_grad=trained)

    @property
    def b2(self) -> Tensor:
        return nn.functional.softplus(self.raw)

    def forward(self, x: Tensor) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        return _FORMS[self.method.form](wide, self.b2.to(wide.dtype), self.method.slope).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.method.form}, b2={float(self.b2.detach()):.4g}"


def log_series(z: Tensor, a: float | Tensor, b: float | Tensor, terms: int = _TERMS) -> Tensor:
    """ln E_{a,b}(z) for z >= 0 and a, b > 0, by the series' logarithms: no term overflows. Any shape.

    Good to rounding while the largest term is among `terms`; for a = 2 that is up to z of about 10^4.

    >>> float(log_series(torch.tensor(9.0), 2.0, 1.0).exp() / torch.tensor(3.0).cosh()).__round__(4)
    1.0
    """
    k = torch.arange(terms, dtype=z.dtype, device=z.device)
    weights = torch.lgamma(torch.as_tensor(a, dtype=z.dtype) * k + torch.as_tensor(b, dtype=z.dtype))
    # 0^0 is 1: the first term stands for itself.
    logarithm = torch.log(z.clamp_min(torch.finfo(z.dtype).tiny))
    return torch.logsumexp(k * logarithm[..., None] - weights, -1)


def mittag_leffler(z: Tensor, a: float, b: float) -> Tensor:
    """E_{a,b}(z): closed forms for a = 0 and for (1, 1) and (1/2, 1), the series for z >= 0, and for z < 0 a series
    with signs, good to about 1e-8 down to z = -10 in float64.

    Raises `BadInput` for a < 0.
    """
    if a < 0:
        raise BadInput(f"a is {a:g}: the series converges for a of at least 0")
    if a == 0:
        return 1 / (math.gamma(b) * (1 - z))
    if (a, b) == (1.0, 1.0):
        return torch.exp(z)
    if (a, b) == (0.5, 1.0):
        return torch.special.erfcx(-z)
    k = torch.arange(_TERMS, dtype=z.dtype, device=z.device)
    size = torch.exp(k * torch.log(z.abs().clamp_min(torch.finfo(z.dtype).tiny))[..., None] - torch.lgamma(a * k + b))
    return torch.where(z[..., None] < 0, size * (1 - 2 * (k % 2)), size).sum(-1)


def derivative(z: Tensor, a: float, b: float) -> Tensor:
    """d E_{a,b} / dz = (E_{a,a+b-1}(z) + (1 - b) E_{a,a+b}(z)) / a, for a > 0."""
    return (mittag_leffler(z, a, a + b - 1) + (1 - b) * mittag_leffler(z, a, a + b)) / a


def _ratio(z: Tensor, b2: Tensor) -> Tensor:
    return torch.exp(log_series(z, 2.0, 2.0) - log_series(z, 2.0, b2))


def _tanh(x: Tensor, b2: Tensor, slope: float) -> Tensor:
    return x * _ratio(x * x, b2)


def _mish(x: Tensor, b2: Tensor, slope: float) -> Tensor:
    s = nn.functional.softplus(x)
    return x * s * _ratio(s * s, b2)


def _sigmoid(x: Tensor, b2: Tensor, slope: float) -> Tensor:
    # E_{0,1}(-e^-x) = 1 / (1 + e^-x); the far left would be 1 / infinity, whose gradient is no number.
    return mittag_leffler(-torch.exp(-x.clamp(min=-80)), 0.0, 1.0)


def _swish(x: Tensor, b2: Tensor, slope: float) -> Tensor:
    return x * _sigmoid(slope * x, b2, slope)


def _softsign(x: Tensor, b2: Tensor, slope: float) -> Tensor:
    return x * mittag_leffler(-x.abs(), 0.0, 1.0)


def _gelu(x: Tensor, b2: Tensor, slope: float) -> Tensor:
    # E_{1/2,1}(u) / E_{1,1}(u^2) with u = x / sqrt 2 is erfc(-u), which both parts of overflow to the right.
    return x * 0.5 * torch.special.erfc(-x / math.sqrt(2))


def _relu(x: Tensor, b2: Tensor, slope: float) -> Tensor:
    return torch.relu(x)


def _elu(x: Tensor, b2: Tensor, slope: float) -> Tensor:
    return torch.where(x > 0, x, mittag_leffler(x.clamp(max=0), 1.0, 1.0) - 1)


_FORMS = {
    "tanh": _tanh, "mish": _mish, "sigmoid": _sigmoid, "swish": _swish, "softsign": _softsign, "gelu": _gelu,
    "relu": _relu, "elu": _elu,
}  # fmt: skip
