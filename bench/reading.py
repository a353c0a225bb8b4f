"""Reading the stream after all 30 blocks, and after block 15 alone: 16 rows of 128 tokens."""

from __future__ import annotations

from typing import Any

import torch

from . import handwritten
from .alternate import Result, alternate, at_most
from .peers import nnsight_peer, transformer_lens_peer
from .subject import LAYERS, Subject, subject

ALL_LIMIT, ONE_LIMIT = 0.85, 0.40


def plain(own: Subject) -> Any:
    with torch.no_grad():
        return own.network(own.ids)


def hidden_states(own: Subject) -> Any:
    with torch.no_grad():
        return own.network(own.ids, output_hidden_states=True)


def measure_all(rounds: int = 5) -> Result:
    own = subject()
    _check(own)
    rows = alternate(
        {
            "transformers, plain forward": lambda: plain(own),
            "transformers, output_hidden_states": lambda: hidden_states(own),
            "hand-written hooks, no head": lambda: handwritten.read_residuals(own.network, own.ids, own.mask),
            "optrode": lambda: own.model.read(own.ids, "layers.*.out"),
            "nnsight": lambda: nnsight_peer.read_all(own),
            "TransformerLens": lambda: transformer_lens_peer.read_all(own),
        },
        "transformers, plain forward",
        rounds,
    )
    result = Result("Read all 30 residual sites", "transformers, plain forward", rows, [], [])
    result.targets.append(at_most("optrode against the plain forward", ALL_LIMIT, result.ratio("optrode")))
    return result


def measure_one(rounds: int = 5, layer: int = 15) -> Result:
    own = subject()
    rows = alternate(
        {
            "transformers, plain forward": lambda: plain(own),
            "hand-written hook that stops": lambda: handwritten.read_layer(own.network, own.ids, own.mask, layer),
            "optrode": lambda: own.model.read(own.ids, f"layers.{layer}.out"),
            "nnsight, tracer.stop": lambda: nnsight_peer.read_one(own, layer),
            "TransformerLens, stop_at_layer": lambda: transformer_lens_peer.read_one(own, layer),
        },
        "transformers, plain forward",
        rounds,
    )
    result = Result("Read block 15 alone", "transformers, plain forward", rows, [], [])
    result.targets.append(at_most("optrode against the plain forward", ONE_LIMIT, result.ratio("optrode")))
    return result


def _check(own: Subject) -> None:
    """All read the same numbers, before anyone is timed."""
    ours = own.model.read(own.ids, "layers.*.out")
    by_hand, theirs = handwritten.read_residuals(own.network, own.ids, own.mask), nnsight_peer.read_all(own)
    lens = transformer_lens_peer.read_all(own)
    for layer in range(LAYERS):
        mine = ours[f"layers.{layer}.out"]
        if not (torch.equal(mine, by_hand[layer]) and torch.equal(mine, theirs[layer])):
            raise SystemExit(f"the variants disagree at layer {layer}: nothing was timed")
        # TransformerLens computes attention in another way.
        torch.testing.assert_close(lens[f"blocks.{layer}.hook_resid_post"], mine, rtol=1e-3, atol=0.05)
