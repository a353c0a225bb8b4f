"""Gated units: one half of the features times a function of the other."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .primitives import halves
from .registry import Call, builds


def cdf(w: Tensor) -> Tensor:
    return 0.5 * torch.erfc(-w / math.sqrt(2))


def arctan_gate(w: Tensor) -> Tensor:
    return torch.atan(w) / math.pi + 0.5


def expanded(gate: Tensor, a: Tensor) -> Tensor:
    """A gate stretched from (0, 1) to (-a, 1 + a): arXiv 2405.20768."""
    return gate * (1 + 2 * a) - a


@builds("WiG", W=lambda width: torch.zeros(width, width), b=lambda width: torch.zeros(width))
def wig(x: Tensor, p: Any, call: Call) -> Tensor:
    return x * torch.sigmoid(x @ p.W.mT + p.b)


@builds("GLU")
def glu(x: Tensor, p: Any, call: Call) -> Tensor:
    z, w = halves(x)
    return z * torch.sigmoid(w)


@builds("GTU")
def gtu(x: Tensor, p: Any, call: Call) -> Tensor:
    z, w = halves(x)
    return torch.tanh(z) * torch.sigmoid(w)


@builds("ReGLU")
def reglu(x: Tensor, p: Any, call: Call) -> Tensor:
    z, w = halves(x)
    return z * torch.relu(w)


@builds("GEGLU")
def geglu(x: Tensor, p: Any, call: Call) -> Tensor:
    z, w = halves(x)
    return z * w * cdf(w)


@builds("SwiGLU", a=1.0)
def swiglu(x: Tensor, p: Any, call: Call) -> Tensor:
    z, w = halves(x)
    return z * w * torch.sigmoid(p.a * w)


@builds("Bilinear GLU")
def bilinear(x: Tensor, p: Any, call: Call) -> Tensor:
    z, w = halves(x)
    return z * w


builds("SimpleGate")(bilinear)


@builds("dReLU-GLU")
def drelu(x: Tensor, p: Any, call: Call) -> Tensor:
    z, w = halves(x)
    return torch.relu(z) * torch.relu(w)


@builds("ReLU2-GLU")
def relu2(x: Tensor, p: Any, call: Call) -> Tensor:
    z, w = halves(x)
    return z * torch.relu(w).square()


@builds("tanh GLU")
def tanh_glu(x: Tensor, p: Any, call: Call) -> Tensor:
    z, w = halves(x)
    return z * torch.tanh(w)


@builds("xSwiGLU", a=0.0)
def xswiglu(x: Tensor, p: Any, call: Call) -> Tensor:
    z, w = halves(x)
    return z * w * expanded(torch.sigmoid(w), p.a)


@builds("xGEGLU", a=0.0)
def xgeglu(x: Tensor, p: Any, call: Call) -> Tensor:
    z, w = halves(x)
    return z * w * expanded(cdf(w), p.a)


@builds("xATGLU", a=0.0)
def xatglu(x: Tensor, p: Any, call: Call) -> Tensor:
    z, w = halves(x)
    return z * w * expanded(arctan_gate(w), p.a)


@builds("StarNet gate")
def starnet(x: Tensor, p: Any, call: Call) -> Tensor:
    z, w = halves(x)
    return z.clamp(0, 6) * w


@builds("clamped SwiGLU", fixed=("limit", "a"), limit=7.0, a=1.702)
def clamped(x: Tensor, p: Any, call: Call) -> Tensor:
    """As in gpt-oss, with halves side by side where that network interleaves them."""
    z, w = halves(x)
    w = torch.minimum(w, p.limit)
    return (torch.maximum(torch.minimum(z, p.limit), -p.limit) + 1) * w * torch.sigmoid(p.a * w)


# Receptive field and context, side by side.


@builds("TM2")
def tm2(x: Tensor, p: Any, call: Call) -> Tensor:
    r, c = halves(x)
    return r + r * c


@builds("TM3")
def tm3(x: Tensor, p: Any, call: Call) -> Tensor:
    r, c = halves(x)
    return r * (1 + torch.tanh(r * c))


@builds("TM4")
def tm4(x: Tensor, p: Any, call: Call) -> Tensor:
    r, c = halves(x)
    return r * torch.exp2(r * c)


@builds("Cooperation")
def cooperation(x: Tensor, p: Any, call: Call) -> Tensor:
    r, c = halves(x)
    return (r.square() + 2 * r + c * (1 + r.abs())).clamp(0, 6)
