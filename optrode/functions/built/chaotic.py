"""Functions with a chaotic map inside."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .registry import Call, builds


@builds("HCAF", fixed=("r",), r=4.0)
def hcaf(x: Tensor, p: Any, call: Call) -> Tensor:
    """[..., n] -> [..., n, n]: entry (i, j) is what neuron j of the next layer gets from x_i, the logistic map run j+1
    times from sigmoid(x_i)."""
    value, found = torch.sigmoid(x), []
    for _ in range(x.shape[-1]):
        value = p.r * value * (1 - value)
        found.append(value)
    return torch.stack(found, -1)


@builds("CCAF", fixed=("a", "b"), a=1.0, b=1.0)
def ccaf(x: Tensor, p: Any, call: Call) -> Tensor:
    """Neuron i + 1 takes the map of x_i; the first takes that of its own input, where the source says nothing."""
    mapped = p.a * torch.sin(math.pi * p.b * torch.sin(math.pi * x))
    return torch.cat([mapped[..., :1], mapped[..., :-1]], -1)


@builds("chaotic injection ReLU", fixed=("r",), statistics={"s": 0.3}, r=4.0)
def injection(x: Tensor, p: Any, call: Call) -> Tensor:
    """relu(x + s), the first of the source's seven forms; in training s takes a step of its logistic map."""
    s = call.state["s"]
    if call.training:
        with torch.no_grad():
            s.copy_(p.r * s * (1 - s))
    return torch.relu(x + s.clone())
