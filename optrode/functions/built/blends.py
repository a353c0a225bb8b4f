"""Weighted sums of other functions, with the constraints that papers put on the weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .primitives import combined, total
from .registry import Call, builds

Map = Callable[[Tensor], Tensor]


def identity(x: Tensor) -> Tensor:
    return x


ABU: Sequence[Map] = (torch.tanh, F.elu, torch.relu, F.silu, identity)
MANESSI: Sequence[Map] = (identity, torch.relu, torch.tanh)
APAF: Sequence[Map] = (torch.relu, torch.sigmoid, torch.tanh, identity)


@builds("ABU", a=(0.2,) * 5)
def abu(x: Tensor, p: Any, call: Call) -> Tensor:
    return combined(p.a, [g(x) for g in ABU])


@builds("biased ABU", a=(0.2,) * 5, b=(0.0,) * 5)
def biased(x: Tensor, p: Any, call: Call) -> Tensor:
    return combined(p.a, [g(x) for g in ABU]) + p.b.sum(-1)


@builds("GABU", a=(0.0,) * 5)
def gated(x: Tensor, p: Any, call: Call) -> Tensor:
    return combined(torch.sigmoid(p.a), [g(x) for g in ABU])


@builds("affine combination (Manessi)", a=(1 / 3,) * 3)
def manessi(x: Tensor, p: Any, call: Call) -> Tensor:
    """Weights are moved to the nearest that sum to 1."""
    weights = p.a + (1 - p.a.sum(-1, keepdim=True)) / p.a.shape[-1]
    return combined(weights, [g(x) for g in MANESSI])


@builds("APAF", a=(1.0,) * 4)
def apaf(x: Tensor, p: Any, call: Call) -> Tensor:
    return combined(p.a / p.a.sum(-1, keepdim=True), [g(x) for g in APAF])


@builds("TCA", a=(0.0,) * 5, b=(0.0,) * 5)
def tca(x: Tensor, p: Any, call: Call) -> Tensor:
    scales, shifts = torch.exp(p.a).unbind(-1), p.b.unbind(-1)
    return total(g(a * x + b) for g, a, b in zip(ABU, scales, shifts, strict=True)) / len(ABU)


@builds("TCAv2", a=(0.0,) * 5, b=(0.0,) * 5, c=(0.0,) * 5)
def tca2(x: Tensor, p: Any, call: Call) -> Tensor:
    scales, shifts = torch.exp(p.b).unbind(-1), p.c.unbind(-1)
    parts = [g(b * x + c) for g, b, c in zip(ABU, scales, shifts, strict=True)]
    return combined(torch.softmax(p.a, -1), parts)


@builds("DKNN", a=(0.2,) * 5, b=(1.0,) * 5)
def dknn(x: Tensor, p: Any, call: Call) -> Tensor:
    return combined(p.a, [g(b * x) for g, b in zip(ABU, p.b.unbind(-1), strict=True)])


@builds("VAF", base=torch.tanh, a0=0.0, a=(1.0, 0.0, 0.0), b=(1.0, 1.0, 1.0), c=(0.0, 0.5, -0.5))
def vaf(x: Tensor, p: Any, call: Call) -> Tensor:
    """Starts as its free function."""
    parts = [call.base(b * x + c) for b, c in zip(p.b.unbind(-1), p.c.unbind(-1), strict=True)]
    return p.a0 + combined(p.a, parts)


POOL: Sequence[Map] = (
    lambda x: x, torch.relu, torch.tanh, torch.sigmoid, torch.sin, lambda x: torch.exp(-x * x),
)  # fmt: skip


@builds(
    "FAB",
    W=lambda width: 0.1 * torch.randn(12, width, generator=torch.Generator().manual_seed(0)),
    b=(0.0,) * 12,
)
def fab(x: Tensor, p: Any, call: Call) -> Tensor:
    """A linear layer of each vector gives scores (softmax) and sigmoid scales of six functions: the pool identity,
    ReLU, tanh, sigmoid, sine, Gaussian."""
    heads = x @ p.W.mT + p.b
    scores, scales = torch.softmax(heads[..., :6], -1), torch.sigmoid(heads[..., 6:])
    return total(scores[..., k : k + 1] * g(scales[..., k : k + 1] * x) for k, g in enumerate(POOL))
