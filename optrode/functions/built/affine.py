"""Frames around a free function, and two-piece functions with free pieces."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .primitives import affine, total, two_pieces
from .registry import Call, builds


@builds("TAAF", base=torch.tanh, a=1.0, b=1.0, c=0.0, d=0.0)
def taaf(x: Tensor, p: Any, call: Call) -> Tensor:
    return affine(call.base, x, p.a, p.b, p.c, p.d)


@builds("trainable amplitude", base=torch.tanh, a=1.0, b=0.0)
def amplitude(x: Tensor, p: Any, call: Call) -> Tensor:
    return p.a * call.base(x) + p.b


@builds("LAAF", base=torch.tanh, fixed=("n",), a=0.1, n=10.0)
def laaf(x: Tensor, p: Any, call: Call) -> Tensor:
    """n times a starts as 1."""
    return call.base(p.n * p.a * x)


@builds("DPAF", base=torch.tanh, a=1.0, m=0.0)
def dpaf(x: Tensor, p: Any, call: Call) -> Tensor:
    g = call.base(x)
    return two_pieces(x, p.a * g + p.m, g + p.m)


@builds("FPAF", base=torch.tanh, a=1.0, b=1.0)
def fpaf(x: Tensor, p: Any, call: Call) -> Tensor:
    """One free function for both pieces."""
    g = call.base(x)
    return two_pieces(x, p.a * g, p.b * g)


@builds("L-ReLU", fixed=("p", "n"), p=1.0, n=0.25)
def l_relu(x: Tensor, p: Any, call: Call) -> Tensor:
    """Slopes p above and n below 0; the source takes n from the data."""
    return torch.where(x > 0, (p.p * x).clamp(min=0), (p.n * x).clamp(max=0))


@builds("MSAF", fixed=("a", "b"), a=0.0, b=(-1.0, 1.0))
def msaf(x: Tensor, p: Any, call: Call) -> Tensor:
    return p.a + total(torch.sigmoid(x - b) for b in p.b.unbind(-1))


@builds("PReLU-PELU gate", a=1.0, slope=0.25, scale=1.0, width=1.0)
def prelu_pelu(x: Tensor, p: Any, call: Call) -> Tensor:
    """`slope` is PReLU's, `scale` and `width` are a and b of PELU."""
    prelu = torch.where(x >= 0, x, p.slope * x)
    pelu = torch.where(x >= 0, p.scale / p.width * x, p.scale * torch.expm1(x.clamp(max=0) / p.width))
    share = torch.sigmoid(p.a * x)
    return share * prelu + (1 - share) * pelu


@builds("soft exponential", a=0.0)
def soft_exponential(x: Tensor, p: Any, call: Call) -> Tensor:
    """Near a = 0, where both forms are 0/0, by the series x + a (1 + x^2/2); for a < 0 it needs x > 1/a - a."""
    small = p.a.abs() < 1e-4
    a = torch.where(small, torch.ones_like(p.a), p.a)
    up = torch.expm1(a.clamp(min=0) * x) / a.abs() + a
    inside = torch.where(a < 0, 1 - a * (x + a), torch.ones_like(x))
    down = -torch.log(inside) / a
    return torch.where(small, x + p.a * (1 + x * x / 2), torch.where(a > 0, up, down))
