"""Fractional derivatives and special functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .primitives import total
from .registry import Call, builds


def grunwald(g: Callable[[Tensor], Tensor], x: Tensor, a: Tensor, h: Tensor, steps: int) -> Tensor:
    """Grünwald-Letnikov: h^-a times the sum of (-1)^n binomial(a, n) g(x - n h), n from 0 to `steps`."""
    weight, parts = torch.ones_like(a), []
    for n in range(steps + 1):
        if n:
            weight = weight * (n - 1 - a) / n
        parts.append(weight * g(x - n * h))
    return h**-a * total(parts)


@builds("FAAF", base=torch.tanh, fixed=("h",), a=0.0, h=0.1)
def faaf(x: Tensor, p: Any, call: Call) -> Tensor:
    """By the sum of six steps, as in the rows for softplus and tanh."""
    return grunwald(call.base, x, p.a, p.h, 5)


@builds("FracSoftplus", fixed=("h",), a=0.5, h=0.1)
def frac_softplus(x: Tensor, p: Any, call: Call) -> Tensor:
    return grunwald(lambda u: F.softplus(u, threshold=40), x, p.a, p.h, 5)


@builds("FracTanh", fixed=("h",), a=0.5, h=0.1)
def frac_tanh(x: Tensor, p: Any, call: Call) -> Tensor:
    return grunwald(torch.tanh, x, p.a, p.h, 5)


@builds("FALU", a=0.0, b=1.0)
def falu(x: Tensor, p: Any, call: Call) -> Tensor:
    gate = torch.sigmoid(p.b * x)
    g = x * gate
    h = g + torch.sigmoid(x) * (1 - g)
    return torch.where(p.a <= 1, g + p.a * gate * (1 - g), h + (p.a - 1) * gate * (1 - 2 * h))


def mittag_leffler(z: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """E_{alpha,beta}(z) for alpha >= 1/2: the series up to |z| = 8, asymptotics beyond. Computed in float64."""
    z, alpha, beta = z.double(), alpha.double(), beta.double()
    near = z.clamp(-8, 8)
    k = torch.arange(120, dtype=torch.float64, device=z.device)
    logs = torch.lgamma(alpha * k + beta)
    # Terms z^k / Gamma(alpha k + beta) by logarithms, with the sign apart.
    size = torch.exp(k * near.abs().clamp(min=1e-300).log()[..., None] - logs)
    series = torch.where(near[..., None] < 0, size * (1 - 2 * (k % 2)), size).sum(-1)
    far = z.abs().clamp(min=8)
    tail = total(_reciprocal_gamma(beta - alpha * n) * torch.where(z < 0, -far, far) ** -n for n in range(1, 6))
    growth = torch.exp(far ** (1 / alpha)) * far ** ((1 - beta) / alpha) / alpha
    return torch.where(z.abs() <= 8, series, torch.where(z > 0, growth - tail, -tail))


def _reciprocal_gamma(u: Tensor) -> Tensor:
    """1/Gamma(u), which is 0 at the poles; by reflection below 1/2."""
    low = torch.exp(torch.lgamma(1 - u)) * torch.sin(math.pi * u) / math.pi
    pole = (u <= 0) & (u == u.round())
    return torch.where(pole, 0.0, torch.where(u < 0.5, low, torch.exp(-torch.lgamma(u.clamp(min=0.5)))))


@builds("Mittag-Leffler sigmoid", fixed=("alpha", "beta"), alpha=1.0, beta=1.0)
def mittag_leffler_sigmoid(x: Tensor, p: Any, call: Call) -> Tensor:
    """1/(1 + E(-x)); with alpha = beta = 1 the logistic function."""
    return (1 / (1 + mittag_leffler(-x, p.alpha, p.beta))).to(x.dtype)


@builds("exp-erfi unit", a=1.0, b=0.0)
def exp_erfi(x: Tensor, p: Any, call: Call) -> Tensor:
    """exp(z^2) with erfi(z) = a x + b: z by Newton's method on the power series, its gradient by the inverse rule."""
    u = (p.a * x + p.b).double()
    with torch.no_grad():
        size = u.abs()
        z = torch.where(size < 1, size * math.sqrt(math.pi) / 2, torch.sqrt(torch.log(size.clamp(min=1) + 1) + 0.5))
        for _ in range(30):
            z = z - (_erfi(z) - size) * math.sqrt(math.pi) / 2 * torch.exp(-z * z)
        z = z * torch.sign(u)
    step = (u - u.detach()) * math.sqrt(math.pi) / 2 * torch.exp(-z * z)
    return torch.exp((z + step) ** 2).to(x.dtype)


def _erfi(z: Tensor) -> Tensor:
    """Its series has positive terms only, so that nothing cancels."""
    term, found = z.clone(), z.clone()
    for n in range(1, 200):
        term = term * z * z / n
        found = found + term / (2 * n + 1)
    return found * 2 / math.sqrt(math.pi)
