"""Functions of complex numbers and of whole vectors by their length."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .registry import Call, builds


@builds("CReLU complex")
def crelu(z: Tensor, p: Any, call: Call) -> Tensor:
    return torch.complex(torch.relu(z.real), torch.relu(z.imag))


@builds("modReLU", b=0.0)
def mod_relu(z: Tensor, p: Any, call: Call) -> Tensor:
    size = z.abs()
    return torch.relu(size + p.b) * z / size.clamp(min=torch.finfo(size.dtype).tiny)


@builds("zReLU")
def z_relu(z: Tensor, p: Any, call: Call) -> Tensor:
    return torch.where((z.real >= 0) & (z.imag >= 0), z, 0.0)


@builds("complex cardioid")
def cardioid(z: Tensor, p: Any, call: Call) -> Tensor:
    """cos(arg z) as Re z / |z|."""
    size = z.abs()
    cosine = torch.where(size > 0, z.real / size.clamp(min=torch.finfo(size.dtype).tiny), 1.0)
    return z * (1 + cosine) / 2


def _direction(v: Tensor) -> tuple[Tensor, Tensor]:
    length = torch.sqrt(v.square().sum(-1, keepdim=True) + torch.finfo(v.dtype).tiny)
    return length, v / length


@builds("norm nonlinearity", base=torch.relu, b=0.0)
def norm_nonlinearity(v: Tensor, p: Any, call: Call) -> Tensor:
    length, unit = _direction(v)
    return call.base(length + p.b) * unit


@builds("squash")
def squash(v: Tensor, p: Any, call: Call) -> Tensor:
    length, unit = _direction(v)
    return length.square() / (1 + length.square()) * unit
