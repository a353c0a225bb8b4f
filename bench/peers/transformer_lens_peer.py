"""TransformerLens 4.3.0: a bridge around a copy of the network, since it swaps the network's modules for its own."""

from __future__ import annotations

import contextlib
import io
import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ..subject import LAYERS, Subject, subject


@cache
def bridge() -> Any:
    from transformer_lens.model_bridge.sources.transformers import boot

    own = subject()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        return boot("SmolLM2-135M-Instruct", hf_model=own.copied(), tokenizer=own.tokenizer)


def _is_residual(name: str) -> bool:
    return name.endswith(".hook_resid_post")


def read_all(own: Subject) -> Any:
    with torch.no_grad():
        return bridge().run_with_cache(own.ids, names_filter=_is_residual)[1]


def read_one(own: Subject, layer: int) -> Any:
    name = f"blocks.{layer}.hook_resid_post"
    with torch.no_grad():
        return bridge().run_with_cache(own.ids, names_filter=name, stop_at_layer=layer + 1)[1]


def generate(ids: Tensor, mask: Tensor, layer: int, vector: Tensor, tokens: int) -> Tensor:
    def steer(value: Tensor, hook: Any) -> Tensor:
        return value + vector

    model = bridge()
    with torch.no_grad(), model.hooks(fwd_hooks=[(f"blocks.{layer}.hook_resid_post", steer)]):
        return model.generate(
            ids, attention_mask=mask, max_new_tokens=tokens, stop_at_eos=False, do_sample=False, verbose=False
        )


def donor_residuals(own: Subject) -> Any:
    with torch.no_grad():
        return bridge().run_with_cache(own.donor, names_filter=_is_residual)[1]


def patches(own: Subject, donors: Any, cells: list[tuple[int, int]]) -> list[float]:
    """One forward a patch, as its own patching functions do."""
    first, second = own.answers
    found = []
    for layer, position in cells:
        name = f"blocks.{layer}.hook_resid_post"

        def patch(value: Tensor, hook: Any, name: str = name, position: int = position) -> Tensor:
            value[:, position] = donors[name][:, position]
            return value

        with torch.no_grad():
            logits = bridge().run_with_hooks(own.base, fwd_hooks=[(name, patch)])[0, -1]
        found.append(float(logits[first] - logits[second]))
    return found


def gradients(own: Subject) -> list[Tensor]:
    """The gradient of the logit difference at every block's output."""
    kept: dict[str, Tensor] = {}

    def keep(value: Tensor, hook: Any) -> Tensor:
        kept[hook.name] = value
        return value

    names = [(f"blocks.{layer}.hook_resid_post", keep) for layer in range(LAYERS)]
    first, second = own.answers
    logits = bridge().run_with_hooks(own.base, fwd_hooks=names)[0, -1]
    return list(torch.autograd.grad(logits[first] - logits[second], list(kept.values())))
