"""Ratios of polynomials."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .primitives import chebyshev, combined, polynomial
from .registry import Call, builds


def _fit() -> tuple[list[float], list[float]]:
    """Coefficients with which numerator (degree 5) over 1 + |denominator| (degree 4) comes close to leaky ReLU 0.01:
    least squares of p(x) - f(x) (1 + q(x)) on [-3, 3], with q kept even and so positive."""
    x = torch.linspace(-3, 3, 601, dtype=torch.float64)
    f = torch.where(x >= 0, x, 0.01 * x)
    columns = [x**j for j in range(6)] + [-f * x**k for k in (2, 4)]
    solution = torch.linalg.lstsq(torch.stack(columns, -1), f[:, None]).solution[:, 0].tolist()
    return solution[:6], [0.0, solution[6], 0.0, solution[7]]


NUMERATOR, DENOMINATOR = _fit()


def powers(x: Tensor, coefficients: Tensor) -> Tensor:
    """Sum of b_k x^k from k = 1 on."""
    return x * polynomial(x, coefficients)


@builds("PAU", a=NUMERATOR, b=DENOMINATOR)
def pau(x: Tensor, p: Any, call: Call) -> Tensor:
    """It may have poles; starts close to leaky ReLU on [-3, 3]."""
    return polynomial(x, p.a) / (1 + powers(x, p.b))


@builds("safe PAU", a=NUMERATOR, b=DENOMINATOR)
def safe_pau(x: Tensor, p: Any, call: Call) -> Tensor:
    return polynomial(x, p.a) / (1 + powers(x, p.b).abs())


@builds("PAU version A", a=NUMERATOR, b=DENOMINATOR)
def pau_a(x: Tensor, p: Any, call: Call) -> Tensor:
    return polynomial(x, p.a) / (1 + powers(x.abs(), p.b.abs()))


@builds("rational NN unit", p=(0.0218, 0.5, 1.5957, 1.1915), q=(1.0, 0.0, 2.383))
def rational(x: Tensor, p: Any, call: Call) -> Tensor:
    return polynomial(x, p.p) / polynomial(x, p.q)


@builds("RPAU", random=True, fixed=("r",), a=NUMERATOR, b=DENOMINATOR, r=0.01)
def rpau(x: Tensor, p: Any, call: Call) -> Tensor:
    """In training every coefficient is off by up to r of itself, for each number anew."""
    if not call.training:
        return safe_pau(x, p, call)

    def shaken(coefficients: Tensor) -> Tensor:
        like = x[..., None].expand(*x.shape, coefficients.shape[-1])
        return coefficients * (1 + p.r * call.uniform(like, -1, 1))

    return polynomial(x, shaken(p.a)) / (1 + powers(x, shaken(p.b)).abs())


@builds("ERA-rational", fixed=("eps",), a=(0.0, 0.5, 0.5, 0.0, 0.0, 0.0), c=(0.0, 0.0), d=(1.0, 1.0), eps=1e-6)
def era(x: Tensor, p: Any, call: Call) -> Tensor:
    below = torch.ones_like(x)
    for c, d in zip(p.c.unbind(-1), p.d.unbind(-1), strict=True):
        below = below * ((x - c) ** 2 + d * d)
    return polynomial(x, p.a) / (p.eps + below)


@builds("OPAU", a=(0.0, 1.0, 0.0, 0.0, 0.0, 0.0), b=(0.0,) * 4)
def opau(x: Tensor, p: Any, call: Call) -> Tensor:
    """In Chebyshev polynomials; starts as the identity."""
    basis = chebyshev(x, 6)
    return combined(p.a, basis) / (1 + combined(p.b, basis[1:5]))


@builds("safe OPAU", a=(0.0, 1.0, 0.0, 0.0, 0.0, 0.0), b=(0.0,) * 4)
def safe_opau(x: Tensor, p: Any, call: Call) -> Tensor:
    basis = chebyshev(x, 6)
    return combined(p.a, basis) / (1 + combined(p.b.abs(), [one.abs() for one in basis[1:5]]))
