"""The limit: the same answers from plain transformers and torch, written by hand for Llama-like networks.

No optrode in here. What a person would write who knows the network, wants one number and checks nothing: no layouts,
no roles, no padding, no receipts. A bench compares optrode with these, in one process, in alternated turns.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class StopReading(Exception):
    """Ends a forward after the layer that was wanted."""


# Reading -------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def read_residuals(model: Any, ids: Tensor, mask: Tensor) -> list[Tensor]:
    """The stream after every block, [row, token, width] each: hooks, the base network alone, no cache."""
    found: list[Tensor] = []
    handles = [
        block.register_forward_hook(lambda module, args, output: found.append(output.clone()))
        for block in model.model.layers
    ]
    try:
        model.model(input_ids=ids, attention_mask=mask, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return found


@torch.no_grad()
def read_layer(model: Any, ids: Tensor, mask: Tensor, layer: int) -> Tensor:
    """The stream after one block, [row, token, width]; nothing runs after it."""
    found: list[Tensor] = []

    def keep(module: Any, args: Any, output: Tensor) -> None:
        found.append(output.clone())
        raise StopReading

    handle = model.model.layers[layer].register_forward_hook(keep)
    try:
        model.model(input_ids=ids, attention_mask=mask, use_cache=False)
    except StopReading:
        pass
    finally:
        handle.remove()
    return found[0]


# Sweeping ------------------------------------------------------------------------------------------------------------


class BaseCache:
    """Keys and values of the first columns of one prompt, in front of those of any number of rows."""

    def __init__(self, keys_values: list[tuple[Tensor, Tensor]], columns: int):
        self.keys_values = keys_values
        self.columns = columns

    def update(self, keys: Tensor, values: Tensor, layer: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        rows = len(keys)
        before = [kept[:, :, : self.columns].expand(rows, -1, -1, -1) for kept in self.keys_values[layer]]
        return torch.cat([before[0], keys], 2), torch.cat([before[1], values], 2)


@torch.no_grad()
def sweep(model: Any, base: Tensor, donor: Tensor, answer: int, against: int) -> Tensor:
    """logit(answer) - logit(against) at the last token for every patch of one stream vector, [layer, position].

    `base` and `donor` are [1, token] ids of one length without padding. The patched vector is that of `donor` after
    the block. Positions before the first difference keep the value of `base`, rows of one position run together, and
    columns before the patch are never computed again.
    """
    network, count = model.model, base.shape[1]
    outs, cache, last = _run(model, base)
    donor_outs, _, _ = _run(model, donor)
    difference = model.lm_head.weight[answer] - model.lm_head.weight[against]
    first = int((base != donor)[0].int().argmax())
    columns = list(range(first, count))
    kept = [(layer.keys, layer.values) for layer in cache.layers]
    places = torch.arange(count)[None]
    rotary = network.rotary_emb(outs[0], position_ids=places)
    masks = {c: (torch.arange(count)[None] <= torch.arange(c, count)[:, None])[None, None] for c in columns}
    rows: dict[int, Tensor] = {}
    for layer, block in enumerate(network.layers):
        for c in columns:
            if c in rows:
                rows[c] = block(
                    rows[c], attention_mask=masks[c], position_ids=places[:, c:], cache=BaseCache(kept, c),
                    position_embeddings=(rotary[0][:, c:], rotary[1][:, c:]),
                )  # fmt: skip
            new = outs[layer][:, c:].clone()
            new[:, 0] = donor_outs[layer][:, c]
            rows[c] = torch.cat([rows[c], new]) if c in rows else new
    result = torch.full((len(network.layers), count), float(last @ difference))
    for c in columns:
        result[:, c] = network.norm(rows[c][:, -1]) @ difference
    return result


def _run(model: Any, ids: Tensor) -> tuple[list[Tensor], Any, Tensor]:
    """The stream after every block, the cache, and what the head reads at the last token."""
    found: list[Tensor] = []
    handles = [
        block.register_forward_hook(lambda module, args, output: found.append(output)) for block in model.model.layers
    ]
    try:
        output = model.model(input_ids=ids, use_cache=True)
    finally:
        for handle in handles:
            handle.remove()
    return found, output.cache, output.last_hidden_state[0, -1]


@torch.no_grad()
def naive_sweep(model: Any, base: Tensor, donor: Tensor, answer: int, against: int, layers: Any = None) -> Tensor:
    """The same by one whole forward for each patch, [layer, position]: what every tutorial does."""
    donor_outs, _, _ = _run(model, donor)
    wanted = range(len(model.model.layers)) if layers is None else layers
    result = torch.zeros(len(wanted), base.shape[1])
    for row, layer in enumerate(wanted):
        for position in range(base.shape[1]):

            def patch(module: Any, args: Any, output: Tensor, layer: int = layer, position: int = position) -> Tensor:
                output = output.clone()
                output[:, position] = donor_outs[layer][:, position]
                return output

            handle = model.model.layers[layer].register_forward_hook(patch)
            try:
                logits = model(input_ids=base, use_cache=False).logits[0, -1]
            finally:
                handle.remove()
            result[row, position] = logits[answer] - logits[against]
    return result
