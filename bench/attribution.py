"""Gradients of a logit difference at every block's output: what attribution patching needs."""

from __future__ import annotations

import torch
from torch import Tensor

from .alternate import Result, alternate, at_most
from .peers import nnsight_peer, transformer_lens_peer
from .subject import LAYERS, Subject, subject

LIMIT = 3.0


def ours(own: Subject) -> list[Tensor]:
    first, second = own.answers
    acts = own.model.read(own.base, ["layers.*.out", "logits"], grad=True)
    logits = acts["logits"][0, -1]
    gradients = acts.gradients(logits[first] - logits[second])
    return [gradients[f"layers.{layer}.out"] for layer in range(LAYERS)]


def measure(rounds: int = 9) -> Result:
    own = subject()
    mine = ours(own)
    for other in (nnsight_peer.gradients(own), transformer_lens_peer.gradients(own)):
        for left, right in zip(mine, other, strict=True):
            torch.testing.assert_close(left, right, rtol=1e-2, atol=1e-4)

    def forward() -> None:
        with torch.no_grad():
            own.network(own.base)

    rows = alternate(
        {
            "transformers, plain forward": forward,
            "optrode": lambda: ours(own),
            "nnsight": lambda: nnsight_peer.gradients(own),
            "TransformerLens": lambda: transformer_lens_peer.gradients(own),
        },
        "transformers, plain forward",
        rounds,
        warm=2,
    )
    result = Result("Attribution gradients at all 30 sites", "transformers, plain forward", rows, [], [])
    result.targets.append(at_most("optrode, in plain forwards", LIMIT, result.ratio("optrode")))
    result.notes.append("Nobody computes gradients of weights: all ask autograd for those of the 30 sites alone.")
    return result
