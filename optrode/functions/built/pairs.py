"""Functions of pairs, groups and copies of features."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import WrongShape
from .primitives import halves, interleaved, pairs
from .registry import Call, builds


@builds("CReLU")
def crelu(x: Tensor, p: Any, call: Call) -> Tensor:
    return torch.cat([torch.relu(x), torch.relu(-x)], -1)


@builds("NCReLU")
def ncrelu(x: Tensor, p: Any, call: Call) -> Tensor:
    return torch.cat([torch.relu(x), -torch.relu(-x)], -1)


@builds("BAF", base=torch.relu)
def bipolar(x: Tensor, p: Any, call: Call) -> Tensor:
    """Features are counted from 0."""
    even = torch.arange(x.shape[-1], device=x.device) % 2 == 0
    return torch.where(even, call.base(x), -call.base(-x))


@builds("DualReLU")
def dual_relu(x: Tensor, p: Any, call: Call) -> Tensor:
    z, w = halves(x)
    return torch.relu(z) - torch.relu(w)


@builds("DualELU")
def dual_elu(x: Tensor, p: Any, call: Call) -> Tensor:
    z, w = halves(x)
    return F.elu(z) - F.elu(w)


@builds("OPLU")
def oplu(x: Tensor, p: Any, call: Call) -> Tensor:
    z, w = pairs(x)
    return interleaved(torch.maximum(z, w), torch.minimum(z, w))


@builds("GroupSort", fixed=("k",), k=2.0)
def group_sort(x: Tensor, p: Any, call: Call) -> Tensor:
    """Rising within each group."""
    count = int(p.k)
    if x.shape[-1] % count:
        raise WrongShape(f"{x.shape[-1]} features do not make groups of {count}")
    return x.unflatten(-1, (-1, count)).sort(-1).values.flatten(-2)


@builds("MaxMin (halves)")
def max_min(x: Tensor, p: Any, call: Call) -> Tensor:
    z, w = halves(x)
    return torch.cat([torch.maximum(z, w), torch.minimum(z, w)], -1)


@builds("Paired ReLU", a=0.5, b=0.0, c=-0.5, d=0.0)
def paired(x: Tensor, p: Any, call: Call) -> Tensor:
    return torch.cat([torch.relu(p.a * x - p.b), torch.relu(p.c * x - p.d)], -1)


@builds("MBA", base=torch.relu, b=(-1.0, 0.0, 1.0))
def multi_bias(x: Tensor, p: Any, call: Call) -> Tensor:
    return torch.cat([call.base(x + b) for b in p.b.unbind(-1)], -1)


@builds("maxout", w=(1.0, 0.0), b=(0.0, 0.0))
def maxout(x: Tensor, p: Any, call: Call) -> Tensor:
    """Starts as ReLU."""
    return torch.stack([w * x + b for w, b in zip(p.w.unbind(-1), p.b.unbind(-1), strict=True)]).amax(0)


@builds("Householder activation", t=math.pi / 2)
def householder(x: Tensor, p: Any, call: Call) -> Tensor:
    """Pairs are neighbours; t may be one number for each pair."""
    z, w = pairs(x)
    sine, cosine = torch.sin(p.t / 2), torch.cos(p.t / 2)
    inner = z * sine - w * cosine
    reflected = interleaved(z - 2 * inner * sine, w + 2 * inner * cosine)
    return torch.where(interleaved(inner, inner) > 0, x, reflected)


@builds("All-ReLU", fixed=("a", "layer"), a=0.6, layer=0.0)
def all_relu(x: Tensor, p: Any, call: Call) -> Tensor:
    """`layer` is the number of the layer it stands in: even ones turn the negative side up."""
    slope = torch.where(p.layer % 2 == 0, -p.a, p.a)
    return torch.where(x > 0, x, slope * x)
