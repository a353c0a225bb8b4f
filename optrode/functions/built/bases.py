"""Expansions in polynomials, waves and bumps."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .primitives import chebyshev, combined, hermite, legendre, polynomial, total
from .registry import Call, builds

# Least squares of ReLU on [-1, 1], in powers.
RELU_LINE = (0.09375, 0.5, 0.46875)


@builds("SLAF", a=(0.0, 1.0, 0.0, 0.0, 0.0, 0.0))
def slaf(x: Tensor, p: Any, call: Call) -> Tensor:
    """Starts as the identity; inputs should be normalised."""
    return polynomial(x, p.a)


@builds("ChPAF", a=(0.0, 1.0, 0.0, 0.0))
def chpaf(x: Tensor, p: Any, call: Call) -> Tensor:
    return combined(p.a, chebyshev(x, p.a.shape[-1]))


@builds("LPAF", a=(0.0, 1.0, 0.0, 0.0))
def lpaf(x: Tensor, p: Any, call: Call) -> Tensor:
    return combined(p.a, legendre(x, p.a.shape[-1]))


@builds("HPAF", a=(0.0, 1.0, 0.0, 0.0, 0.0, 0.0))
def hpaf(x: Tensor, p: Any, call: Call) -> Tensor:
    """Probabilists' polynomials, of which the source does not say whether they are meant."""
    return combined(p.a, hermite(x, p.a.shape[-1]))


@builds("Rowdy", base=torch.tanh, fixed=("c",), a=(0.0,) * 9, c=1.0)
def rowdy(x: Tensor, p: Any, call: Call) -> Tensor:
    parts = [p.c * torch.sin((j + 1) * p.c * x) for j in range(p.a.shape[-1])]
    return call.base(x) + combined(p.a, parts)


@builds("FSA", a=0.0, b=(0.0,) * 5, c=(1.0, 0.0, 0.0, 0.0, 0.0), d=1.0)
def fsa(x: Tensor, p: Any, call: Call) -> Tensor:
    """Starts as a sine."""
    waves = range(1, p.b.shape[-1] + 1)
    cosines = combined(p.b, [torch.cos(j * p.d * x) for j in waves])
    return p.a + cosines + combined(p.c, [torch.sin(j * p.d * x) for j in waves])


@builds("NPF", fixed=("L",), a0=0.0, a=(0.0,) * 5, b=(1.0, 0.0, 0.0, 0.0, 0.0), L=3.0)
def npf(x: Tensor, p: Any, call: Call) -> Tensor:
    """Waves on [-L, L], the tangent at the end beyond."""
    inside = torch.minimum(torch.maximum(x, -p.L), p.L)
    waves = [k * math.pi / p.L for k in range(1, p.a.shape[-1] + 1)]
    value = combined(p.a, [torch.cos(w * inside) for w in waves]) + combined(
        p.b, [torch.sin(w * inside) for w in waves]
    )
    slope = combined(p.b, [w * torch.cos(w * inside) for w in waves]) - combined(
        p.a, [w * torch.sin(w * inside) for w in waves]
    )
    return p.a0 + value + slope.detach() * (x - inside)


@builds("MoGU", a=(1.0, 1.0, 1.0), s=(1.0, 1.0, 1.0), m=(-1.0, 0.0, 1.0))
def mogu(x: Tensor, p: Any, call: Call) -> Tensor:
    parts = [
        torch.exp(-((x - m) ** 2) / (2 * s * s)) / torch.sqrt(2 * math.pi * s * s)
        for s, m in zip(p.s.unbind(-1), p.m.unbind(-1), strict=True)
    ]
    return combined(p.a, parts)


DICTIONARY = tuple(-3 + 6 * j / 19 for j in range(20))
WIDTH = 1 / (6 * (6 / 19) ** 2)


def _ridge_tanh() -> list[float]:
    """Weights with which the bumps make tanh, by ridge regression on the dictionary."""
    d = torch.tensor(DICTIONARY, dtype=torch.float64)
    kernel = torch.exp(-WIDTH * (d[:, None] - d) ** 2)
    return torch.linalg.solve(kernel + 1e-4 * torch.eye(20, dtype=torch.float64), torch.tanh(d)).tolist()


def kernel_sum(x: Tensor, p: Any) -> Tensor:
    return combined(p.a, [torch.exp(-p.g * (x - d) ** 2) for d in p.d.unbind(-1)])


@builds("KAF", fixed=("d", "g"), a=_ridge_tanh(), d=DICTIONARY, g=WIDTH)
def kaf(x: Tensor, p: Any, call: Call) -> Tensor:
    """Starts as tanh on [-3, 3]."""
    return kernel_sum(x, p)


@builds("KAF plus RSigELU", fixed=("d", "g", "e"), a=(0.0,) * 20, d=DICTIONARY, g=WIDTH, e=0.5)
def kaf_rsigelu(x: Tensor, p: Any, call: Call) -> Tensor:
    above = torch.where(x > 1, x + p.e * x * torch.sigmoid(x), x)
    return kernel_sum(x, p) + torch.where(x >= 0, above, p.e * torch.expm1(x.clamp(max=0)))


@builds("2D-KAF", fixed=("d", "g"), a=(0.0,) * 49, d=tuple(float(j) for j in range(-3, 4)), g=1 / 6)
def kaf2(x: Tensor, p: Any, call: Call) -> Tensor:
    """Neighbours make pairs; one number for each pair. The dictionary is a 7 x 7 grid, weights in rows."""
    first, second = x[..., 0::2], x[..., 1::2]
    one = [torch.exp(-p.g * (first - d) ** 2) for d in p.d.unbind(-1)]
    other = [torch.exp(-p.g * (second - d) ** 2) for d in p.d.unbind(-1)]
    weights = p.a.unbind(-1)
    return total(weights[7 * i + j] * one[i] * other[j] for i in range(7) for j in range(7))
