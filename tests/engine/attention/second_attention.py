"""Attention written down again, and the networks on which both are compared."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

import optrode as op

INSIDE = "layers.*.attn.{q_rotated,k_rotated,scores,pattern}"
PATTERN, SCORES, KEYS, HEADS = (f"layers.1.attn.{name}" for name in ("pattern", "scores", "k_rotated", "heads"))


def attention_of(model: op.Model, layer: int) -> Any:
    """The module that computes attention, by its own name in transformers."""
    module: Any = model.module
    if hasattr(module, "transformer"):
        return module.transformer.h[layer].attn
    return module.model.layers[layer].self_attn


def gemma2(tokenizer: Any, dtype: torch.dtype, seed: int = 0) -> op.Model:
    """Grouped heads, capped scores, and a window of 5 tokens in every second layer."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    torch.manual_seed(seed)
    config = Gemma2Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, query_pre_attn_scalar=5, attn_logit_softcapping=2.0, sliding_window=5,
        initializer_range=0.2, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )  # fmt: skip
    return op.load(Gemma2ForCausalLM(config).to(dtype).eval(), tokenizer=tokenizer)


def made(name: str, make_model: Any, tokenizer: Any, dtype: torch.dtype = torch.float64) -> op.Model:
    # Padded rows of Gemma 2 are NaN in float64: its mask is infinite in the float32 of its softmax.
    if name == "gemma2":
        return gemma2(tokenizer, torch.float32 if dtype == torch.float64 else dtype)
    return make_model(name, dtype)


Change = Callable[[int, str, Tensor], Tensor]


@contextmanager
def by_hand(model: op.Model, change: Change) -> Iterator[None]:
    """Attention written down again and put in the place of the network's own, with `change(layer, what, tensor)` in it.

    `what` is query, key, scores or pattern, [example, head, query or key, ...].
    """
    file = sys.modules[type(model.module).__module__]

    def forward(module, query, key, value, attention_mask, scaling=None, softcap=None, **_):
        at = lambda what, tensor: change(module.layer_idx, what, tensor)  # noqa: E731
        query, key = at("query", query), at("key", key)
        repeats = query.shape[1] // key.shape[1]
        pieces = []
        for head in range(query.shape[1]):
            scores = torch.einsum("bqf,bkf->bqk", query[:, head], key[:, head // repeats]) * scaling
            pieces.append(softcap * torch.tanh(scores / softcap) if softcap else scores)
        scores = at("scores", torch.stack(pieces, 1)) + attention_mask
        weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
        # Rows of padding see nothing.
        pattern = at("pattern", torch.nan_to_num(weights, nan=0.0)) * (attention_mask == 0)
        values = [pattern[:, head] @ value[:, head // repeats] for head in range(query.shape[1])]
        return torch.stack(values, 2), None

    own, name = file.eager_attention_forward, model.config._attn_implementation
    model.module.set_attn_implementation("eager")
    file.eager_attention_forward = forward
    try:
        yield
    finally:
        file.eager_attention_forward = own
        model.module.set_attn_implementation(name)


def same(got: Tensor, wanted: Tensor, tolerance: float | None = None) -> bool:
    tolerance = tolerance or (1e-10 if wanted.dtype == torch.float64 else 2e-5)
    return bool((got - wanted).abs().max() <= tolerance * wanted.abs().max())


def columns(batch: Any, positions: str) -> Tensor:
    """Columns that some roles mean in these prompts, bool [example, token], by the words of the template."""
    found = torch.zeros_like(batch.mask)
    for row, text in enumerate(batch.texts):
        start = text.index("user\n") + len("user\n")
        stop = text.index("<|im_end|>")
        for column in batch.mask[row].nonzero().flatten().tolist():
            left, right = batch.offsets[row, column].tolist()
            found[row, column] = {
                "user": left >= start and right <= stop, "last_prompt": column == batch.width - 1, "all": True,
            }[positions]  # fmt: skip
    return found
