"""Edits inside attention as part of the graph: the module asks its config for a function, and finds this one there."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from ...errors import NotSupported
from ..attention import _OPEN, _by_query_head, _scores, _sees, probabilities
from ..recompute import full_precision
from ..transformers_names import BAKED_ATTENTION, asks_config, baked_config, own_attention, register_attention
from .here import Written

HELD = "optrode_inside"


class Inside(nn.Module):
    """What is written inside one attention module, by side, and the function that its host would have called."""

    def __init__(self, name: str, own: Any):
        super().__init__()
        self.name = name
        self._own = (own,)
        self.sides = nn.ModuleDict()

    def write(self, side: str, tensor: Tensor) -> Tensor:
        if side in self.sides:
            for written in cast(nn.ModuleList, self.sides[side]):
                tensor = written(tensor)
        return tensor

    def put(self, written: Written) -> None:
        side = written.site.port.side
        if side not in self.sides:
            self.sides[side] = nn.ModuleList()
        cast(nn.ModuleList, self.sides[side]).append(written)

    def own(self, *args: Any, **options: Any) -> tuple[Tensor, Tensor | None]:
        return self._own[0](*args, **options)


def put_inside(module: nn.Module, written: Written) -> None:
    """Let an attention module of a twin apply `written`. Its config becomes a copy of its own that asks for us."""
    if HELD not in module._modules:
        if not asks_config(module):
            raise NotSupported(
                f"{type(module).__name__} computes attention in its own code: bake an edit at attn.heads or attn.out"
            )
        name, own = own_attention(module)
        if written.site.port.side in ("scores", "pattern") and name not in _OPEN:
            raise NotSupported(
                f"attention '{name}' keeps scores and pattern to itself: load the network with "
                "attn_implementation='sdpa' or 'eager'"
            )
        module.add_module(HELD, Inside(name, own))
        register_attention(attend, BAKED_ATTENTION)
        module.__dict__["config"] = baked_config(module.__dict__["config"])
    cast(Inside, module._modules[HELD]).put(written)


def attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None = None, **options: Any
) -> tuple[Tensor, Tensor | None]:
    """Attention of one module as its host computes it, with what was baked into it. As `engine.attention.attend`."""
    inside: Inside = module._modules[HELD]  # type: ignore[assignment]
    query, key = inside.write("query", query), inside.write("key", key)
    answered = inside.own(module, query, key, value, attention_mask, **options)
    if "scores" not in inside.sides and "pattern" not in inside.sides:
        return answered
    sees = _sees(inside.name, module, query, key, attention_mask, options)
    with full_precision(query):
        own_scores = _scores(query, key, attention_mask, sees, options)
    sinks = options.get("s_aux")
    plain = probabilities(own_scores, sinks)
    pattern = plain
    if "scores" in inside.sides:
        pattern = probabilities(inside.write("scores", own_scores), sinks)
    pattern = inside.write("pattern", pattern)
    if sees is not None:
        # No edit makes a token look at padding or at what comes after it.
        pattern = torch.where(sees, pattern, torch.zeros_like(pattern))
    output, weights = answered
    with full_precision(value):
        ours = (pattern @ _by_query_head(value.to(pattern.dtype), pattern.shape[1])).transpose(1, 2).to(output.dtype)
    changed = (pattern != plain).any(-1).transpose(1, 2)[..., None]
    return torch.where(changed, ours, output), weights if weights is None else pattern.to(weights.dtype)
