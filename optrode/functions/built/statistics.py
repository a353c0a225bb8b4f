"""Functions that look at the batch: its means, deviations and extremes, with running values in evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .primitives import normalised, total
from .registry import Call, builds

MOMENTUM = 0.1


def of_batch(x: Tensor, call: Call) -> tuple[Tensor, Tensor]:
    """Mean and variance of each feature over everything before it: those of the batch in training, else running."""
    mean, variance = call.state["mean"], call.state["variance"]
    if not call.training:
        return mean, variance
    flat = x.reshape(-1, x.shape[-1])
    now, spread = flat.mean(0), flat.var(0, correction=0)
    with torch.no_grad():
        mean.lerp_(now, MOMENTUM)
        variance.lerp_(spread, MOMENTUM)
    return now, spread


MOMENTS = {"mean": lambda width: torch.zeros(width), "variance": lambda width: torch.ones(width)}


@builds("ABReLU")
def abrelu(x: Tensor, p: Any, call: Call) -> Tensor:
    return torch.relu(x - x.mean(-1, keepdim=True))


@builds("AOAF", fixed=("b", "c"), b=0.17, c=0.17)
def aoaf(x: Tensor, p: Any, call: Call) -> Tensor:
    """m is the mean of each neuron over the batch."""
    m = x.reshape(-1, x.shape[-1]).mean(0)
    return torch.relu(x - p.b * m) + p.c * m


@builds("DReLU")
def drelu(x: Tensor, p: Any, call: Call) -> Tensor:
    return torch.maximum(x, (x.amin() + x.amax()) / 2)


@builds("Dice", statistics=MOMENTS, a=0.0)
def dice(x: Tensor, p: Any, call: Call) -> Tensor:
    mean, variance = of_batch(x, call)
    share = torch.sigmoid((x - mean) / torch.sqrt(variance + 1e-8))
    return share * x + (1 - share) * p.a * x


@builds("VeLU", fixed=("al", "b1", "b2", "g", "m"), statistics=MOMENTS, l=1.0, al=1.0, b1=1.0, b2=0.5, g=0.5, m=1.0)
def velu(x: Tensor, p: Any, call: Call) -> Tensor:
    """The deviation is that of each feature."""
    _, variance = of_batch(x, call)
    u = p.b2 * x
    inside = u.abs() < 1
    arcsine = torch.where(inside, torch.asin(torch.where(inside, u, 0.0)), u.sign().detach() * (math.pi / 2))
    inner = torch.atan(p.b1 * x) + arcsine
    return p.l * x * torch.sigmoid(p.al * inner) * (1 + p.g * torch.tanh(p.m * torch.sqrt(variance + 1e-12)))


@builds("PolyNorm", a=(1 / 3, 1 / 3, 1 / 3), b=0.0)
def poly_norm(x: Tensor, p: Any, call: Call) -> Tensor:
    a1, a2, a3 = p.a.unbind(-1)
    return a1 * normalised(x, 1e-6) + a2 * normalised(x**2, 1e-6) + a3 * normalised(x**3, 1e-6) + p.b


@builds("ApproxMinMaxNorm square", statistics={"low": 0.0, "high": 1.0})
def min_max_square(x: Tensor, p: Any, call: Call) -> Tensor:
    low, high = call.state["low"], call.state["high"]
    if call.training:
        with torch.no_grad():
            low.lerp_(x.detach().amin(), MOMENTUM)
            high.lerp_(x.detach().amax(), MOMENTUM)
    return (2 * (x - low) / (high - low) - 1).square()


@builds("activation ensemble", a=(0.25, 0.25, 0.25, 0.25))
def ensemble(x: Tensor, p: Any, call: Call) -> Tensor:
    """Sigmoid, tanh, ReLU and ELU, each brought to [0, 1] over the batch by feature; weights are made to sum to 1."""
    weights = torch.relu(p.a) / torch.relu(p.a).sum(-1, keepdim=True)

    def scaled(h: Tensor) -> Tensor:
        flat = h.reshape(-1, h.shape[-1])
        low, high = flat.amin(0), flat.amax(0)
        return (h - low) / (high - low + 1e-6)

    pool: tuple[Callable[[Tensor], Tensor], ...] = (torch.sigmoid, torch.tanh, torch.relu, F.elu)
    return total(w * scaled(g(x)) for w, g in zip(weights.unbind(-1), pool, strict=True))
