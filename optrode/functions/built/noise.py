"""Functions that add noise in training."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .registry import Call, builds


@builds("ProbAct", random=True, base=torch.relu, s=1.0)
def probact(x: Tensor, p: Any, call: Call) -> Tensor:
    g = call.base(x)
    return g + p.s * call.normal(x) if call.training else g


def _hard(x: Tensor) -> Tensor:
    return x.clamp(-1, 1)


def _spread(x: Tensor, p: Any) -> Tensor:
    """How far the hard function is saturated: 0 where it is not."""
    return p.c * (torch.sigmoid(p.p * (_hard(x) - x)) - 0.5).square()


@builds("noisy AF (NAN)", random=True, fixed=("al", "c"), al=1.15, c=1.0, p=1.0)
def nan_(x: Tensor, p: Any, call: Call) -> Tensor:
    """Hard tanh with half-normal noise; evaluation takes the noise's mean sqrt(2/pi). arXiv 1603.00391."""
    noise = call.normal(x).abs() if call.training else math.sqrt(2 / math.pi)
    direction = -torch.sign(x) * torch.sign(1 - p.al)
    return p.al * _hard(x) + (1 - p.al) * x - direction * _spread(x, p) * noise


@builds("noisy input AF (NANI)", random=True, s=1.0)
def nani(x: Tensor, p: Any, call: Call) -> Tensor:
    """Hard tanh of a noisy input; without noise in evaluation."""
    return _hard(x + p.s * call.normal(x)) if call.training else _hard(x)


@builds("hard concrete gate", random=True, fixed=("b", "l", "r"), b=2 / 3, l=-0.1, r=1.1)
def hard_concrete(x: Tensor, p: Any, call: Call) -> Tensor:
    if call.training:
        u = call.uniform(x, 1e-6, 1 - 1e-6)
        s = torch.sigmoid((torch.log(u) - torch.log(1 - u) + x) / p.b)
    else:
        s = torch.sigmoid(x)
    return (s * (p.r - p.l) + p.l).clamp(0, 1)
