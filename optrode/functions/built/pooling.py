"""Softmax and its relatives: functions of a whole vector of features."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .registry import Call, builds


@builds("softmax")
def softmax(x: Tensor, p: Any, call: Call) -> Tensor:
    return torch.softmax(x, -1)


@builds("log-softmax")
def log_softmax(x: Tensor, p: Any, call: Call) -> Tensor:
    return torch.log_softmax(x, -1)


@builds("softmin")
def softmin(x: Tensor, p: Any, call: Call) -> Tensor:
    return torch.softmax(-x, -1)


@builds("temperature softmax", fixed=("T",), T=1.0)
def temperature(x: Tensor, p: Any, call: Call) -> Tensor:
    return torch.softmax(x / p.T, -1)


@builds("beta-softmax", random=True, fixed=("b",), b=1.0)
def beta(x: Tensor, p: Any, call: Call) -> Tensor:
    """b is drawn as b = -ln u for each vector in training (the source names no distribution); 1 in evaluation."""
    b = -torch.log(call.uniform(x[..., :1], 1e-12, 1.0)) if call.training else p.b
    return torch.softmax(b * x, -1)


@builds("sparsemax")
def sparsemax(x: Tensor, p: Any, call: Call) -> Tensor:
    """The nearest point of the simplex, arXiv 1602.02068."""
    ordered = x.sort(-1, descending=True).values
    count = torch.arange(1, x.shape[-1] + 1, device=x.device, dtype=x.dtype)
    sums = ordered.cumsum(-1)
    kept = (1 + count * ordered > sums).sum(-1, keepdim=True)
    return (x - (sums.gather(-1, kept - 1) - 1) / kept).clamp(min=0)


@builds("alpha-entmax", fixed=("a",), a=1.5)
def entmax(x: Tensor, p: Any, call: Call) -> Tensor:
    """The threshold by 60 bisections; the gradient is that of the support, as of arXiv 1905.05702. a > 1."""
    power = 1 / (p.a - 1)
    z = (p.a - 1) * x
    with torch.no_grad():
        low = z.amax(-1, keepdim=True) - 1
        high = z.amax(-1, keepdim=True) - x.shape[-1] ** (1 - p.a)
        for _ in range(60):
            middle = (low + high) / 2
            above = ((z - middle).clamp(min=0) ** power).sum(-1, keepdim=True) >= 1
            low, high = torch.where(above, middle, low), torch.where(above, high, middle)
        value = (z - low).clamp(min=0) ** power
        value = value / value.sum(-1, keepdim=True)
        # d threshold / d z: shares of value^(2-a) over the support.
        share = torch.where(value > 0, value ** (2 - p.a), 0.0)
        share = share / share.sum(-1, keepdim=True)
        slope = torch.where(value > 0, power * value ** (2 - p.a), 0.0)
    moved = z - (share * z).sum(-1, keepdim=True)
    return value + slope * (moved - moved.detach())


@builds("Gumbel-softmax", random=True, fixed=("T",), T=1.0)
def gumbel(x: Tensor, p: Any, call: Call) -> Tensor:
    """Without noise in evaluation."""
    noise = -torch.log(-torch.log(call.uniform(x, 1e-12, 1 - 1e-7))) if call.training else 0.0
    return torch.softmax((x + noise) / p.T, -1)


@builds("softmax1")
def softmax1(x: Tensor, p: Any, call: Call) -> Tensor:
    top = x.detach().amax(-1, keepdim=True).clamp(min=0)
    e = torch.exp(x - top)
    return e / (torch.exp(-top) + e.sum(-1, keepdim=True))


@builds("SoLU")
def solu(x: Tensor, p: Any, call: Call) -> Tensor:
    return x * torch.softmax(x, -1)


@builds("SQMAX", fixed=("c",), c=4.0)
def sqmax(x: Tensor, p: Any, call: Call) -> Tensor:
    square = (x + p.c).square()
    return square / square.sum(-1, keepdim=True)


@builds("log-sum-exp pooling", fixed=("r",), r=1.0)
def log_sum_exp(x: Tensor, p: Any, call: Call) -> Tensor:
    """One number for each vector, on an axis of length 1."""
    count = torch.tensor(float(x.shape[-1]), dtype=x.dtype, device=x.device)
    return (torch.logsumexp(p.r * x, -1, keepdim=True) - torch.log(count)) / p.r


@builds("generalised mean pooling", fixed=("eps",), p=3.0, eps=1e-6)
def generalised_mean(x: Tensor, p: Any, call: Call) -> Tensor:
    """One number for each vector, on an axis of length 1."""
    return torch.maximum(x, p.eps).pow(p.p).mean(-1, keepdim=True).pow(1 / p.p)


@builds("causal-exp", fixed=("eps",), eps=1e-5)
def causal_exp(x: Tensor, p: Any, call: Call) -> Tensor:
    """Deviation of the population; `eps` is added to the variance, where the source has 0."""
    centred = x - x.mean(-1, keepdim=True)
    return torch.exp(centred / torch.sqrt(centred.square().mean(-1, keepdim=True) + p.eps))


@builds("squared-ReLU attention weight")
def squared_relu(x: Tensor, p: Any, call: Call) -> Tensor:
    return torch.relu(x).square() / x.shape[-1]
