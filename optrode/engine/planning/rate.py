"""How fast a network runs here: seconds by forward size, from a few short timed forwards, once per process."""

from __future__ import annotations

import time
import weakref
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ...host import Host
from ..hooks import hooks_alone
from ..mapping.trial import in_eval_mode
from ..run import Inputs, run
from .like import Like

# Rows and tokens of the timed forwards; no third one is begun after this many seconds.
_SIZES = ((1, 16), (1, 64), (4, 64))
_ENOUGH_SECONDS = 1.0


@dataclass(frozen=True)
class Rate:
    """Seconds of a forward through all layers: `fixed`, and `by_token` for each token (row where there are none)."""

    fixed: float
    by_token: float
    basis: str

    def seconds(self, forwards: Sequence[tuple[int, int]], share: float = 1.0) -> float:
        """Seconds of forwards of these rows and tokens, of which a `share` of the layers runs."""
        return share * sum(self.fixed + self.by_token * rows * max(1, tokens) for rows, tokens in forwards)


_KNOWN: weakref.WeakKeyDictionary[nn.Module, dict[Hashable, Rate | None]] = weakref.WeakKeyDictionary()


def rate(host: Host, like: Like, head: bool, tower: str = "") -> Rate | None:
    """The rate of this network on this machine, with or without its head, or of one of its towers.

    None where made-up inputs do not run. The first call takes about a second, or a few short forwards of a slow
    network; later ones take what it measured.
    """
    known = _KNOWN.setdefault(host.module, {})
    key = (head, tower, host.dtype, host.device, like.key, torch.get_num_threads())
    if key not in known:
        known[key] = _measured(host, like, head, tower)
    return known[key]


def _measured(host: Host, like: Like, head: bool, tower: str) -> Rate | None:
    some = [(rows, min(tokens, like.longest)) for rows, tokens in _SIZES]
    sizes = some if like.any_tokens else [(1, 0), (2, 0)]
    seen: list[tuple[int, float]] = []
    started = time.perf_counter()
    try:
        _timed(host, like.make(*sizes[0]), head, tower)
        for rows, tokens in sizes:
            if len(seen) == 2 and time.perf_counter() - started > _ENOUGH_SECONDS:
                break
            seen.append((rows * max(1, tokens), _timed(host, like.make(rows, tokens), head, tower)))
    except Exception:  # whatever a network's own forward may raise on inputs that were made up
        return None
    (few, quick), (many, slow) = seen[0], seen[-1]
    by_token = (slow - quick) / (many - few) if many > few else 0.0
    fixed = quick - by_token * few
    if by_token <= 0 or fixed < 0:
        fixed, by_token = 0.0, slow / many
    unit = "tokens" if like.any_tokens else "rows"
    took = ", ".join(f"{count} {unit} in {seconds:.2g} s" for count, seconds in seen)
    parts = "all layers and the head" if head else "all layers"
    return Rate(fixed, by_token, f"measured once in this process through {parts}: {took}")


def _timed(host: Host, inputs: Inputs, head: bool, tower: str) -> float:
    with torch.no_grad(), hooks_alone(), in_eval_mode(host.module):
        _wait(host)
        started = time.perf_counter()
        run(host, inputs, head=head, tower=tower)
        _wait(host)
    return time.perf_counter() - started


def _wait(host: Host) -> None:
    if host.device.type == "cuda":
        torch.cuda.synchronize(host.device)
