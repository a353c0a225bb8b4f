"""Inside attention: queries and keys as they enter it, scores, and the pattern, which no module of a network returns.

Modules of transformers ask their config by which name to look up the function that computes attention. A module that a
session looks into gets a shallow copy of its config with our name in it, and loses it again when the last such session
ends; the config of the network stays as it is, and with it the mask that the network makes. Our function asks the
context which sessions are active. Where there is none, as in another thread, it calls the host's own function with the
very same arguments.

What is only read does not change a bit: the host's own function gives the output, and scores and pattern are computed
beside it in float32 or wider. What is edited is computed here, but only for the queries and heads whose pattern really
changed; all others keep what the host's function gave them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import NotSupported
from .hooks import INSTALL, Side, active_sessions
from .recompute import carry, full_precision
from .transformers_names import asks_config, own_attention, put_back_config, register_attention, renamed_config

if TYPE_CHECKING:
    from .editing.session import Session

# Sides of ports that lie inside attention, in order of computation.
SIDES = ("query", "key", "scores", "pattern")

# Implementations whose masks say for every query and key whether it is seen.
_OPEN = ("eager", "sdpa")


# The config of one module --------------------------------------------------------------------------------------------


def _put_on(module: nn.Module) -> None:
    if not asks_config(module):
        raise NotSupported(
            f"{type(module).__name__} computes attention in its own code, not through the attention interface of "
            "transformers: nothing inside can be read or written, use attn.heads"
        )
    register_attention(attend)
    module.__dict__["config"] = renamed_config(module.__dict__["config"])


def _take_off(module: nn.Module) -> None:
    # An owner who has put another config there in between keeps it.
    put_back_config(module)


INSTALL["attention"] = Side(_put_on, _take_off)


# The function that modules call --------------------------------------------------------------------------------------


def attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None = None, **options: Any
) -> tuple[Tensor, Tensor | None]:
    """Attention of one module as its host computes it, with what the active sessions read and edit inside.

    `query` is [example, head, query, feature], `key` and `value` [example, key head, key, feature]. Returns what the
    host's function returns: the output as [example, query, head, feature], and the pattern where the host gives one.
    """
    name, own = own_attention(module)
    sessions = active_sessions()
    carry(sessions)
    query = _passed(sessions, module, "query", query)
    key = _passed(sessions, module, "key", key)
    if not any(session.uses((module, side)) for session in sessions for side in SIDES[2:]):
        return own(module, query, key, value, attention_mask, **options)
    if name not in _OPEN:
        raise NotSupported(
            f"attention '{name}' keeps scores and pattern to itself: load the network with "
            "attn_implementation='sdpa' or 'eager'"
        )
    sees = _sees(name, module, query, key, attention_mask, options)
    with full_precision(query):
        own_scores = _scores(query, key, attention_mask, sees, options)
    scores = _passed(sessions, module, "scores", own_scores)
    sinks = options.get("s_aux")
    plain = probabilities(scores, sinks)
    pattern = _passed(sessions, module, "pattern", plain, sees)
    if scores is not own_scores:
        plain = probabilities(own_scores, sinks)
    # In the host's own gradient mode: it chooses between kernels by that, and with them between last bits.
    answered = own(module, query, key, value, attention_mask, **options)
    return _answer(answered, plain, pattern, value, bool(options.get("dropout")))


def _answer(
    answered: tuple[Tensor, Tensor | None], plain: Tensor, pattern: Tensor, value: Tensor, dropout: bool
) -> tuple[Tensor, Tensor | None]:
    """What the host's function answered, with pattern @ v where the pattern is no longer the `plain` one."""
    output, weights = answered
    through = torch.is_grad_enabled() and pattern.requires_grad
    if pattern is plain and not through:
        return answered
    if through and dropout:
        raise NotSupported("gradients through the attention pattern need attention without dropout: call eval() first")
    with full_precision(value):
        ours = (pattern @ _by_query_head(value.to(pattern.dtype), pattern.shape[1])).transpose(1, 2).to(output.dtype)
    changed = (pattern != plain).any(-1).transpose(1, 2)[..., None]
    new = torch.where(changed, ours, output)
    if through:
        # The numbers are the host's where nothing changed; the gradients go through the pattern everywhere.
        new = _Numbers.apply(new.detach(), ours)
    return new, weights if weights is None or pattern is plain else pattern.to(weights.dtype)


def _passed(
    sessions: list[Session], module: nn.Module, side: str, tensor: Tensor, sees: Tensor | None = None
) -> Tensor:
    """`tensor` as all sessions leave it, after which all of them have looked at it; itself where none edits it."""
    for session in sessions:
        new = session.edit_inside((module, side), tensor)
        # No edit makes a token look at padding or at what comes after it.
        tensor = new if new is tensor or sees is None else torch.where(sees, new, tensor)
    for session in sessions:
        session.see_inside((module, side), tensor)
    return tensor


class _Numbers(torch.autograd.Function):
    """The first argument's numbers with the second one's gradient."""

    @staticmethod
    def forward(ctx: Any, numbers: Tensor, graph: Tensor) -> Tensor:
        return numbers.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        return None, gradients[0]


# Scores and pattern --------------------------------------------------------------------------------------------------


def _scores(query: Tensor, key: Tensor, mask: Tensor | None, sees: Tensor | None, options: dict[str, Any]) -> Tensor:
    """What the softmax gets, [example, head, query, key] in float32 or wider; -inf where a query may not look."""
    wide = torch.promote_types(query.dtype, torch.float32)
    scaling = options.get("scaling")
    scores = query.to(wide) @ _by_query_head(key.to(wide), query.shape[1]).transpose(2, 3)
    scores = scores * (scaling if scaling is not None else query.shape[-1] ** -0.5)
    cap = options.get("softcap")
    if cap is not None:
        scores = cap * torch.tanh(scores / cap)
    bias = options.get("position_bias")
    if bias is not None:
        scores = scores + bias
    if mask is not None and mask.dtype != torch.bool:
        scores = scores + mask
    return scores if sees is None else scores.masked_fill(~sees, -torch.inf)


def _sees(
    name: str, module: nn.Module, query: Tensor, key: Tensor, mask: Tensor | None, options: dict[str, Any]
) -> Tensor | None:
    """Whether a query may look at a key: bool, broadcastable to [example, head, query, key]; None where all may."""
    if mask is not None:
        return mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
    causal = options.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    queries, keys = query.shape[2], key.shape[2]
    # Without a mask, sdpa is causal by itself, from the first key on; eager is not.
    if name == "eager" or not causal or queries == 1:
        return None
    return torch.ones(queries, keys, dtype=torch.bool, device=query.device).tril()


def probabilities(scores: Tensor, sinks: Tensor | None = None) -> Tensor:
    """Softmax over keys, [example, head, query, key]; rows that see no key are zero.

    `sinks` ([head]) are scores of one more column that takes its share of the sum and is left out.
    """
    # The order in memory decides about the last bit, and an edit may have changed it.
    scores = scores.contiguous()
    if sinks is not None:
        column = sinks.to(scores.dtype).reshape(1, -1, 1, 1).expand(*scores.shape[:-1], 1)
        return torch.cat([scores, column], -1).softmax(-1)[..., :-1]
    blind = (scores == -torch.inf).all(-1, keepdim=True)
    return scores.masked_fill(blind, 0.0).softmax(-1).masked_fill(blind, 0.0)


def _by_query_head(tensor: Tensor, heads: int) -> Tensor:
    """Key heads repeated for the query heads that share them."""
    return tensor.repeat_interleave(heads // tensor.shape[1], dim=1)
