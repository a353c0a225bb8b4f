"""Reading: the least forward that gives the activations that were asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ...activations import Activations
from ...batches import Batch
from ...errors import BadInput, NotSupported
from ...host import Host
from ...positions import Positions
from ..editing.actions import Tap
from ..editing.session import Session
from ..generating.policies import refuse_policy
from ..hooks import hooks_alone
from ..planning.budget import SPILL, refuse, schedule
from ..planning.like import like
from ..resume import Residuals, checked
from ..run import run
from ..sizes import as_bytes
from ..transformers_names import cache_argument, cache_contents, new_cache
from ..twin import uncompiled
from .in_memory import InMemory
from .many_forwards import chunks, cuts, many_forwards
from .one_forward import bare_forward, one_forward, resumed_forward
from .reductions import OwnReduction
from .request import Request
from .resolve import TOKENS_PER_FORWARD, Readable, resolved
from .results import Given, kept
from .spill import OnDisk, spill_folder

__all__ = ["chunks", "read", "residuals"]


def read(
    host: Host,
    inputs: Readable,
    sites: str | Sequence[str],
    *,
    positions: str | Positions | None = None,
    grad: bool = False,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    reduce: str | OwnReduction | None = None,
    budget: str | int | None = None,
    spill: str | Path | None = None,
    tokens_per_forward: int = TOKENS_PER_FORWARD,
    template: str | None = None,
    system: str | None = None,
) -> Activations:
    """Activations of `inputs` at `sites`; the forward stops after the last site that is needed.

    `inputs`: a prompt, a list of prompts, one or several pictures (PIL images, arrays or paths; `optrode.pictures`), a
    `Batch`, a tensor or dictionary of tensors, or `Residuals` to resume from.
    `positions`: None gives whole rows, [example, token, ...]; a selection gives [position, ...], or [example, ...]
    where each row has exactly one. `grad=True` keeps the graph (one forward, nothing copied). `device` and `dtype` say
    where and how values are kept; by default as they are. `reduce` shrinks every site the moment it is seen
    (`optrode.engine.reading.reductions`): over the selected tokens with a name such as `mean`, over the last axis with
    one such as `norm@feature`, or with a function of the value [example, token, ...] and the bool [example, token] that
    says which tokens count, to a tensor [example, ...]. Values keep the site's dtype unless `dtype` says otherwise.

    `budget` (`2GB` or a number of bytes) limits the memory taken beside the network: where results and the largest
    forward do not fit, forwards get smaller; where results alone do not fit, they go to a nameless file in the folder
    `spill` (a cache folder by default) and come back as tensors mapped from disk, on the cpu, until they are let go
    (`Activations.close`). What still does not fit is refused before anything runs. `optrode.plan` says all
    of it before.

    Prompts are sorted by length and run in forwards of at most `tokens_per_forward` tokens; results are in the order
    of `inputs`. No head, logits or KV cache are computed unless asked for. Raises `UnknownSite`, `BadInput`,
    `NotSupported`, `OverBudget`, and `NoSpace` for a disk that fills up.
    """
    # Hooks in a compiled network would be ignored: what is read is the network under it, with the same weights.
    host = uncompiled(host)
    refuse_policy(host, "a read")
    request, given = resolved(
        host, inputs, sites, positions=positions, grad=grad, device=device, dtype=dtype, reduce=reduce,
        template=template, system=system,
    )  # fmt: skip
    if budget is not None:
        return _read_within(host, given, request, as_bytes(budget), tokens_per_forward, spill)
    if spill is not None:
        raise BadInput("spill= is where results go that do not fit in a budget: give budget= too, such as '2GB'")
    return _read_as_is(host, given, request, tokens_per_forward)


def _read_as_is(host: Host, given: Given, request: Request, tokens_per_forward: int) -> Activations:
    if isinstance(given, Residuals):
        return resumed_forward(host, given, request)
    if isinstance(given, Tensor | dict):
        return bare_forward(host, given, request)
    if request.whole or given.ids.numel() <= tokens_per_forward:
        return one_forward(host, given, request)
    parts = cuts(given.mask.sum(-1), tokens_per_forward)
    return many_forwards(host, given, request, parts, InMemory(given, request))


def _read_within(
    host: Host, given: Given, request: Request, budget: int, tokens_per_forward: int, spill: str | Path | None
) -> Activations:
    """A read that stays within `budget` bytes beside the network, or is refused before anything runs."""
    if request.grad:
        raise NotSupported("a graph keeps what no plan counts: leave grad=True or budget= out")
    kind = like(host, given)
    results = kept(host, request, given, kind)
    chosen = schedule(host, request, given, kind, results, tokens_per_forward, budget, spill)
    refuse(chosen)
    if chosen.verdict == SPILL and isinstance(given, Batch):
        with OnDisk(given, request, results, spill_folder(spill)) as shelf:
            found = many_forwards(host, given, request, chosen.parts, shelf, "reading activations to disk")
            found.on_disk = shelf.size
            return found
    return _read_as_is(host, given, request, chosen.tokens_per_forward)


def residuals(host: Host, batch: Batch, layers: Sequence[int]) -> Residuals:
    """What `read` can resume from: the stream at the input of some blocks, and all keys and values.

    One forward of the unedited network, whatever edits are active; the keys and values cost
    2 x layers x tokens x width numbers of memory, fewer with grouped key heads.
    """
    session = Session(host)
    taps = {k: Tap(host.table[f"layers.{k}.in"], None, keep_graph=False) for k in layers if 0 < k < host.layers}
    for tap in taps.values():
        session.add_tap(tap)
    cache = new_cache() if host.causal and cache_argument(host.accepts) else None
    with torch.no_grad(), hooks_alone(), session.active():
        run(host, batch, head=False, cache=cache)
    at = {layer: tap.value for layer, tap in taps.items() if tap.value is not None}
    return checked(host, Residuals(batch, at, cache_contents(cache) if cache is not None else []))
