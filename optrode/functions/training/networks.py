"""Small networks with an activation method in them. Weights depend on the seed alone, whatever the method draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Factory(Protocol):
    """Makes what stands after one layer: `ActivationMethod.module`."""

    def __call__(self, width: int, *, axis: int = -1) -> nn.Module: ...


Build = Callable[[Factory, int], nn.Module]
_WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Embedding)


def seeded(network: nn.Module, seed: int) -> nn.Module:
    """Draw all weights anew as PyTorch does by default, from the seed alone; the caller's random numbers stay."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in network.modules():
            if isinstance(module, _WEIGHTED):
                module.reset_parameters()
    return network


def mlp(inputs: int, hidden: Sequence[int], outputs: int) -> Build:
    """Linear layers with an activation after each but the last."""

    def build(activation: Factory, seed: int) -> nn.Module:
        sizes: list[int] = [inputs, *hidden]
        parts: list[nn.Module] = []
        for before, after in pairwise(sizes):
            parts += [nn.Linear(before, after), activation(after)]
        return seeded(nn.Sequential(*parts, nn.Linear(sizes[-1], outputs)), seed)

    return build


def convolutional(outputs: int = 10, widths: Sequence[int] = (16, 32, 32)) -> Build:
    """Three convolutions of 3 by 3, the second halving the picture, and the mean over places."""

    def build(activation: Factory, seed: int) -> nn.Module:
        parts: list[nn.Module] = []
        before = 1
        for number, width in enumerate(widths):
            stride = 2 if number == 1 else 1
            parts += [nn.Conv2d(before, width, 3, stride, padding=1), activation(width, axis=1)]
            before = width
        return seeded(nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, outputs)), seed)

    return build


class _Residual(nn.Module):
    def __init__(self, width: int, activation: Factory):
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(2))
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(2))
        self.inner, self.outer = activation(width, axis=1), activation(width, axis=1)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.inner(self.norms[0](self.first(x)))
        return self.outer(x + self.norms[1](self.second(inner)))  # type: ignore[no-any-return]


def residual_convolutional(outputs: int = 10, width: int = 16, blocks: int = 2) -> Build:
    """A convolution, residual blocks with batch norm, and the mean over places."""

    def build(activation: Factory, seed: int) -> nn.Module:
        stem = [nn.Conv2d(1, width, 3, 2, padding=1), activation(width, axis=1)]
        body = [_Residual(width, activation) for _ in range(blocks)]
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, outputs)]
        return seeded(nn.Sequential(*stem, *body, *head), seed)

    return build


class FeedForward(nn.Module):
    """Up, activation, down; or gated: down(activation(gate x) * up x)."""

    def __init__(self, width: int, hidden: int, activation: Factory, gated: bool):
        super().__init__()
        self.up, self.down = nn.Linear(width, hidden, bias=False), nn.Linear(hidden, width, bias=False)
        self.gate = nn.Linear(width, hidden, bias=False) if gated else None
        self.activation = activation(hidden)

    def forward(self, x: Tensor) -> Tensor:
        if self.gate is None:
            return self.down(self.activation(self.up(x)))  # type: ignore[no-any-return]
        return self.down(self.activation(self.gate(x)) * self.up(x))  # type: ignore[no-any-return]


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, feed_forward: nn.Module):
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.feed_forward = feed_forward

    def forward(self, x: Tensor) -> Tensor:
        rows, tokens, width = x.shape
        q, k, v = self.qkv(self.norms[0](x)).view(rows, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(rows, tokens, width))
        return x + self.feed_forward(self.norms[1](x))  # type: ignore[no-any-return]


class CharacterModel(nn.Module):
    """A causal transformer over characters with learned positions."""

    def __init__(self, alphabet: int, window: int, width: int, heads: int, feed_forwards: Sequence[nn.Module]):
        super().__init__()
        self.characters, self.positions = nn.Embedding(alphabet, width), nn.Embedding(window, width)
        self.blocks = nn.ModuleList(_Block(width, heads, part) for part in feed_forwards)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, alphabet, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.characters(ids) + self.positions.weight[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))  # type: ignore[no-any-return]


def character_model(
    alphabet: int,
    *,
    window: int = 64,
    layers: int = 2,
    width: int = 64,
    heads: int = 4,
    hidden: int | None = None,
    gated: bool = False,
    feed_forward: Callable[[int, int, Factory], nn.Module] | None = None,
) -> Build:
    """A causal transformer. The feed-forward's hidden size is 4 width, or 8/3 width where it is gated, which has as
    many weights. `feed_forward(width, hidden, activation)` makes another one in its place."""
    size = hidden or (8 * width // 3 if gated else 4 * width)

    def build(activation: Factory, seed: int) -> nn.Module:
        made = feed_forward or (lambda width, hidden, activation: FeedForward(width, hidden, activation, gated))
        parts = [made(width, size, activation) for _ in range(layers)]
        return seeded(CharacterModel(alphabet, window, width, heads, parts), seed)

    return build


def coordinate_mlp(hidden: Sequence[int] = (128, 128, 128, 128), outputs: int = 1) -> Build:
    """From two coordinates to a value."""
    return mlp(2, hidden, outputs)
