"""Functions that are a small network of their own. Those over images take [example, channel, row, column]."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import WrongShape
from .registry import Call, builds
from .statistics import MOMENTS, of_batch


def _random(seed: int, *sizes: int) -> Tensor:
    """Weights of standard deviation 1/sqrt(inputs), the same each time."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*sizes, generator=generator) / sizes[-1] ** 0.5


def _depthwise(x: Tensor, kernel: Tensor) -> Tensor:
    if x.dim() != 4:
        raise WrongShape(f"this function takes images [example, channel, row, column], not {list(x.shape)}")
    return F.conv2d(x, kernel.to(x.dtype), padding=1, groups=x.shape[1])


def _kernel(channels: int) -> Tensor:
    return _random(0, channels, 1, 3, 3)


@builds("SCAA", keeps_axes=True, kernel=_kernel)
def scaa(x: Tensor, p: Any, call: Call) -> Tensor:
    return torch.maximum(x, _depthwise(x, p.kernel))


@builds("FunReLU", keeps_axes=True, statistics=MOMENTS, kernel=_kernel)
def funnel(x: Tensor, p: Any, call: Call) -> Tensor:
    """The convolution is followed by batch normalisation without scale or shift."""
    t = _depthwise(x, p.kernel).movedim(1, -1)
    mean, variance = of_batch(t, call)
    return torch.maximum(x, ((t - mean) / torch.sqrt(variance + 1e-5)).movedim(-1, 1))


def _pooled(x: Tensor) -> Tensor:
    """Mean of each channel over rows and columns."""
    if x.dim() != 4:
        raise WrongShape(f"this function takes images [example, channel, row, column], not {list(x.shape)}")
    return x.mean((2, 3))


@builds("MetaACON-C", keeps_axes=True, b=0.0, c=1.0, W1=lambda n: _random(1, max(n // 16, 1), n),
        W2=lambda n: _random(2, n, max(n // 16, 1)))  # fmt: skip
def meta_acon(x: Tensor, p: Any, call: Call) -> Tensor:
    a = torch.sigmoid(_pooled(x) @ p.W1.mT @ p.W2.mT)[:, :, None, None]
    return (p.c - p.b) * x * torch.sigmoid(a * (p.c - p.b) * x) + p.b * x


@builds("DY-ReLU", keeps_axes=True, W1=lambda n: _random(1, max(n // 8, 1), n),
        W2=lambda n: _random(2, 4, max(n // 8, 1)), bias=(0.0, 0.0, 0.0, 0.0))  # fmt: skip
def dynamic_relu(x: Tensor, p: Any, call: Call) -> Tensor:
    """K = 2, coefficients shared by all channels; starts close to ReLU."""
    hidden = torch.relu(_pooled(x) @ p.W1.mT)
    moved = 2 * torch.sigmoid(hidden @ p.W2.mT + p.bias) - 1
    a = moved[:, :2] + torch.tensor([1.0, 0.0], dtype=x.dtype, device=x.device)
    b = 0.5 * moved[:, 2:]
    lines = [a[:, k, None, None, None] * x + b[:, k, None, None, None] for k in range(2)]
    return torch.maximum(*lines)


@builds("NIN", W1=lambda n: _random(1, n, n), b1=lambda n: torch.zeros(n), W2=lambda n: _random(2, n, n),
        b2=lambda n: torch.zeros(n))  # fmt: skip
def network_in_network(x: Tensor, p: Any, call: Call) -> Tensor:
    """Two layers over the features, ReLU between and behind."""
    return torch.relu(torch.relu(x @ p.W1.mT + p.b1) @ p.W2.mT + p.b2)


@builds("MIN", statistics=MOMENTS, W=lambda n: _random(1, 2, n, n), b=lambda n: torch.zeros(2, n))
def maxout_in_network(x: Tensor, p: Any, call: Call) -> Tensor:
    """A layer of two maxout pieces over the features, batch normalised before the maximum over pieces is handed on."""
    pieces = torch.stack([x @ p.W[k].mT + p.b[k] for k in range(2)])
    best = pieces.amax(0)
    mean, variance = of_batch(best, call)
    return (best - mean) / torch.sqrt(variance + 1e-5)


@builds("hyperactivation", z=(1.0, 0.0, 0.0, 0.0), H=_random(3, 13, 4).tolist())
def hyperactivation(x: Tensor, p: Any, call: Call) -> Tensor:
    """A network 1-4-1 of each number, whose weights a linear map H makes from the layer's embedding z."""
    weights = p.z @ p.H.mT
    w1, b1, w2, b2 = weights[..., :4], weights[..., 4:8], weights[..., 8:12], weights[..., 12]
    return (torch.tanh(x[..., None] * w1 + b1) * w2).sum(-1) + b2
