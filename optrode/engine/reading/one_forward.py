"""One forward with taps: whole, of bare tensors, or resumed from what an earlier one left."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...activations import Activations
from ...batches import Batch
from ...errors import NotSupported
from ...host import Host, SiteInfo
from ..axes import has_tokens
from ..editing.actions import Tap
from ..editing.session import Session
from ..few_logits import logit_columns, restore_logits
from ..hooks import active_sessions
from ..resume import Residuals, resumed
from ..run import run
from ..tower_forwards import alone
from ..transformers_names import cache_with
from .gather import gather
from .request import Request

# Where the value of each site goes instead of being kept.
Sinks = Mapping[str, Callable[[Tensor, torch.Size], None]]


def taps_of(request: Request, few_logits: bool = False, sinks: Sinks | None = None) -> list[Tap]:
    """One tap for each site; `sinks` are where values go by address instead of being kept."""
    taps = []
    for site in request.sites:
        late = few_logits and site.address == "logits"
        positions = request.positions if has_tokens(site) else None
        sink = sinks[site.address] if sinks else None
        tap = Tap(site, positions, request.grad, request.device, request.dtype, request.reduction, sink, late)
        taps.append(tap)
    return taps


def one_forward(
    host: Host,
    batch: Batch,
    request: Request,
    first_layer: int = 0,
    residual: Any = None,
    cache: Any = None,
    start: int = 0,
    sinks: Sinks | None = None,
) -> Activations:
    """Activations of one forward; with `sinks` the values go there and those of the result are empty."""
    columns = logit_columns(host, batch, request)
    taps = taps_of(request, few_logits=columns is not None, sinks=sinks)
    session = _session(host, request, taps)
    session.first_layer = first_layer
    with _grad_mode(request.grad), session.active(), resumed(host, first_layer, residual):
        only = alone(host, request.sites, batch)
        run(host, batch, head=request.head, columns=columns, cache=cache, start=start, tower=only)
    _check(taps)
    if columns is not None:
        restore_logits(taps, batch, columns, request)
    return gather(host, batch, request, taps, session)


def bare_forward(host: Host, inputs: Tensor | dict[str, Tensor], request: Request) -> Activations:
    """Activations of one forward of tensors whose roles nobody knows."""
    if request.positions is not None and request.positions.text != "all":
        raise NotSupported("positions need prompts or a Batch: bare tensors have no roles")
    request = replace(request, positions=None)
    taps = taps_of(request)
    session = _session(host, request, taps)
    with _grad_mode(request.grad), session.active():
        run(host, inputs, head=True if not host.table else request.head, tower=alone(host, request.sites, inputs))
    _check(taps)
    batch = session.forward.batch if session.forward else None
    return gather(host, batch, request, taps, session)


def _session(host: Host, request: Request, taps: list[Tap]) -> Session:
    session = Session(host)
    session.stops = request.stops
    for tap in taps:
        session.add_tap(tap)
    return session


def resumed_forward(host: Host, cached: Residuals, request: Request) -> Activations:
    """Resume at the last cached block that neither an active edit nor a wanted site comes before."""
    layer = resume_point(host, cached, request)
    start = _first_column(cached, request)
    residual = cached.at.get(layer)
    if start <= 0:
        return one_forward(host, cached.batch, request, layer, residual)
    residual = residual[:, start:] if residual is not None else None
    return one_forward(host, cached.batch, request, layer, residual, cache_with(cached.keys_values, start), start)


def resume_point(host: Host, cached: Residuals, request: Request) -> int:
    """The block that a resumed read begins with."""
    first = host.layers
    for session in active_sessions():
        for site in session.changed_sites():
            first = min(first, _needs_from(host, site))
    for site in request.sites:
        first = min(first, _needs_from(host, site))
    return cached.start(first)


def _first_column(cached: Residuals, request: Request) -> int:
    """The first column that an active edit touches or that is wanted; those before it need not run again."""
    if not cached.keys_values or request.positions is None or not all(has_tokens(site) for site in request.sites):
        return 0
    touched = request.positions.in_prompt(cached.batch)
    for session in active_sessions():
        for positions in session.positions:
            touched = touched | positions.in_prompt(cached.batch)
    return int(touched.any(0).int().argmax())


def _needs_from(host: Host, site: SiteInfo) -> int:
    """The first block that must really run for this site: a block's output can be had from the cache too."""
    if site.rank is None or site.tower:
        return 0
    layer = site.rank[0]
    return layer + 1 if site.address == f"layers.{layer}.out" else max(0, min(layer, host.layers))


def _grad_mode(grad: bool) -> Any:
    return torch.enable_grad() if grad else torch.no_grad()


def _check(taps: list[Tap]) -> None:
    for tap in taps:
        if tap.fired == 0:
            raise NotSupported(
                f"{tap.site.address} did not run in this forward: the network has the module but does not call it here"
            )
        if tap.overwritten:
            raise NotSupported(
                f"{tap.site.address} is overwritten in place by the network after it was read: read it without grad"
            )
        if tap.fired > 1:
            raise NotSupported(
                f"{tap.site.address} ran {tap.fired} times in one forward, so it is not one activation: "
                "read the modules before and after it"
            )
