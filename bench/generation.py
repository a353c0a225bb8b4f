"""Steered generation: 8 prompts, 64 greedy tokens each, one vector added after block 15."""

from __future__ import annotations

from typing import Any

import torch

import optrode as op

from .alternate import Result, alternate, at_most
from .peers import nnsight_peer, transformer_lens_peer
from .subject import PROMPTS, Subject, subject

LAYER, TOKENS = 15, 64
LIVE_LIMIT, BAKED_LIMIT = 1.03, 1.00
OPTIONS = {"max_new_tokens": TOKENS, "min_new_tokens": TOKENS, "do_sample": False, "pad_token_id": 0}


def measure(rounds: int = 5) -> Result:
    own = subject()
    batch = own.model.encode(list(PROMPTS), template="raw")
    ids, mask = batch.ids, batch.mask.long()
    vector = 20 * torch.nn.functional.normalize(torch.randn(576, generator=torch.Generator().manual_seed(1)), dim=0)
    edit = op.edits.add(f"layers.{LAYER}.out", vector)
    baked = _network(edit.bake(own.model))

    def live() -> Any:
        with own.model.edited(edit):
            return own.model.completions(batch, max_new_tokens=TOKENS, min_new_tokens=TOKENS)

    def raw_hook() -> Any:
        handle = own.network.model.layers[LAYER].register_forward_hook(lambda module, args, out: out + vector)
        try:
            return _generate(own.network, ids, mask)
        finally:
            handle.remove()

    theirs = nnsight_peer.generate(ids, mask, LAYER, vector, TOKENS)
    _check(own, live(), raw_hook(), _generate(baked, ids, mask), theirs)
    plain = "transformers, plain generate"
    rows = alternate(
        {
            plain: lambda: _generate(own.network, ids, mask),
            "hand-written hook": raw_hook,
            "optrode, live edit": live,
            "optrode, baked": lambda: _generate(baked, ids, mask),
            "nnsight": lambda: nnsight_peer.generate(ids, mask, LAYER, vector, TOKENS),
            "TransformerLens": lambda: transformer_lens_peer.generate(ids, mask, LAYER, vector, TOKENS),
        },
        plain,
        rounds,
    )
    result = Result("Steered generation, 8 x 64 tokens", plain, rows, [], [])
    result.targets.append(at_most("live edit against plain generate", LIVE_LIMIT, result.ratio("optrode, live edit")))
    result.targets.append(at_most("baked edit against plain generate", BAKED_LIMIT, result.ratio("optrode, baked")))
    result.notes.append("All but TransformerLens wrote the same tokens; its attention is computed in another way.")
    return result


def _network(baked: Any) -> Any:
    return getattr(baked, "module", baked)


def _generate(network: Any, ids: Any, mask: Any) -> Any:
    with torch.no_grad():
        return network.generate(input_ids=ids, attention_mask=mask, **OPTIONS)


def _check(own: Subject, live: Any, *others: Any) -> None:
    wanted = [list(completion.ids) for completion in live]
    for other in others:
        got = [row[-TOKENS:][: len(mine)] for row, mine in zip(other.tolist(), wanted, strict=True)]
        if got != wanted:
            raise SystemExit("the variants wrote different tokens: nothing was timed")
