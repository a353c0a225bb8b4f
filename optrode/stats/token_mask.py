"""The one mask that every mean, probe and collector uses: no padding, no special tokens, no sink tokens.

The first token of most decoders carries a massive activation (about 2e4 in SmolLM2, against a median of order 1). One
such row ruins a mean, a norm, a quantile or a probe, so rows whose norm exceeds `SINK_FACTOR` times the median norm of
their site are left out everywhere, by the same rule.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..activations import Activations
from ..batches import Batch
from ..errors import BadInput

SINK_FACTOR = 10.0


def sink_mask(h: Tensor, real: Tensor) -> Tensor:
    """Which tokens are sinks at one site: bool [example, token].

    `h`: [example, token, width]; `real`: bool [example, token], the tokens among which the median is taken.
    """
    norms = h.float().norm(dim=-1)
    if not bool(real.any()):
        return torch.zeros_like(real)
    return (norms > SINK_FACTOR * norms[real].median()) & real


def token_mask(acts: Activations, *, batch: Batch | None = None) -> Tensor:
    """Tokens to use: bool [example, token]; a token that is a sink at any site that was read is left out.

    Needs activations that were read whole (with a token axis). Raises `BadInput` when no token is left.
    """
    batch = batch or acts.batch
    if batch is None:
        raise BadInput("a token mask needs activations that were read from prompts, with all their tokens")
    keep = batch.mask & ~batch.special
    for site, h in acts.items():
        if acts.axes[site] == ("example", "token", "feature"):
            keep = keep & ~sink_mask(h, batch.mask.to(h.device)).to(keep.device)
    if not bool(keep.any()):
        raise BadInput("no token is left once padding, special tokens and sink tokens are taken out: use longer texts")
    return keep
