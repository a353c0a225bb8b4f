"""Functions that keep some features and silence the rest."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .registry import Call, builds


def kept(x: Tensor, count: int) -> Tensor:
    """x where it is among the `count` largest of its vector (the first of equals), else 0."""
    places = x.detach().topk(min(count, x.shape[-1]), -1).indices
    return x * torch.zeros_like(x).scatter(-1, places, 1.0)


@builds("k-WTA", fixed=("k",), k=0.2)
def k_winners(x: Tensor, p: Any, call: Call) -> Tensor:
    """k is a share of the features; at least one stays."""
    return kept(x, max(1, round(float(p.k) * x.shape[-1])))


@builds("TopK", fixed=("k",), k=32.0)
def top_k(x: Tensor, p: Any, call: Call) -> Tensor:
    return torch.relu(kept(x, int(p.k)))


@builds("BatchTopK", fixed=("k",), statistics={"threshold": 0.0, "batches": 0.0}, k=32.0)
def batch_top_k(x: Tensor, p: Any, call: Call) -> Tensor:
    """The k B largest of all B vectors; evaluation takes the running mean of the smallest value that stayed."""
    threshold, batches = call.state["threshold"], call.state["batches"]
    if not call.training and bool(batches > 0):
        return torch.where(x > threshold, x, 0.0)
    flat = x.flatten()
    chosen = kept(flat, int(p.k) * (flat.numel() // x.shape[-1]))
    if call.training:
        with torch.no_grad():
            positive = chosen[chosen > 0]
            if len(positive):
                batches += 1
                threshold += (positive.min() - threshold) * torch.clamp(1 / batches, min=0.01)
    return torch.relu(chosen).view_as(x)


@builds("ASH threshold", fixed=("k",), k=0.3)
def ash(x: Tensor, p: Any, call: Call) -> Tensor:
    """What lies above the (1 - k) quantile of its vector."""
    border = torch.quantile(x.detach(), float(1 - p.k), dim=-1, keepdim=True)
    return torch.where(x > border, x, 0.0)


@builds("ProLU", b=0.0)
def prolu(x: Tensor, p: Any, call: Call) -> Tensor:
    """The bias has the gradient of relu(x + b), since it only opens the gate."""
    opened = ((x + p.b > 0) & (x > 0)).to(x.dtype)
    return x * opened + opened * (p.b - p.b.detach())
