"""Plan before run: what a read will keep, how it will run, and about how long it takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from ...batches import Batch
from ...host import Host
from ...positions import Positions
from ..few_logits import logit_columns
from ..reading.one_forward import resume_point
from ..reading.reductions import OwnReduction
from ..reading.request import Request
from ..reading.resolve import TOKENS_PER_FORWARD, Readable, resolved
from ..reading.results import Given, kept
from ..resume import Residuals
from ..sizes import as_bytes
from ..tower_forwards import alone, layers_run
from ..twin import uncompiled
from .budget import Schedule, schedule
from .like import like
from .plans import Plan
from .rate import Rate, rate


def plan(
    host: Host,
    inputs: Readable,
    sites: str | Sequence[str] = "layers.*.out",
    *,
    positions: str | Positions | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    reduce: str | OwnReduction | None = None,
    budget: str | int | None = None,
    spill: str | Path | None = None,
    tokens_per_forward: int = TOKENS_PER_FORWARD,
    template: str | None = None,
    system: str | None = None,
) -> Plan:
    """What `read` with the same arguments will do. The inputs do not run.

    Bytes and shapes are exact: they follow from the sites' axes and from sizes that earlier forwards have shown, of
    which the one on load is the first; a site that was in none is seen once on eight made-up tokens. Memory of a
    forward and seconds are estimates from short forwards of made-up tokens, once per process and set of sites, which
    take about a second.

    Shapes are taken to follow from those of the inputs; a network that picks by their values keeps what it picks.

    Raises `UnknownSite`, `BadInput`, and `NotSupported` where a shape cannot be known before the read.
    """
    host = uncompiled(host)
    request, given = resolved(
        host, inputs, sites, positions=positions, device=device, dtype=dtype, reduce=reduce, template=template,
        system=system,
    )  # fmt: skip
    kind = like(host, given)
    results = kept(host, request, given, kind)
    limit = as_bytes(budget) if budget is not None else None
    chosen = schedule(host, request, given, kind, results, tokens_per_forward, limit, spill)
    head = request.head if host.table else True
    columns = _logits(host, request, given)
    run, skipped = _layers(host, request, given)
    speed = rate(host, kind, False)
    seconds, basis = _seconds(
        chosen, speed, rate(host, kind, True) if head else None, run / max(1, host.layers), columns
    )
    real = int(given.mask.sum()) if isinstance(given, Batch) else kind.rows * kind.tokens
    return Plan(
        model=host.name,
        sites=tuple(results),
        forwards=chosen.forwards,
        tokens=real,
        padding=sum(rows * width for rows, width in chosen.forwards) - real,
        layers_run=run,
        layers_skipped=skipped,
        head=head,
        logits=columns,
        reduction=request.reduction.says if request.reduction else "",
        budget=limit,
        verdict=chosen.verdict,
        why=chosen.why,
        forward_bytes=chosen.forward_bytes,
        memory=chosen.memory,
        disk=chosen.disk,
        seconds=seconds,
        basis=basis,
    )


def _logits(host: Host, request: Request, given: Given) -> int:
    """In how many columns logits are computed; 0 where they are not."""
    if not any(site.address == "logits" for site in request.sites):
        return 0
    few = logit_columns(host, given, request) if isinstance(given, Batch) else None
    width = given.width if isinstance(given, Batch) else 1
    return len(few) if few is not None else width


def _layers(host: Host, request: Request, given: Given) -> tuple[int, int]:
    """Blocks that run, and that are skipped at either end."""
    first = resume_point(host, given, request) if isinstance(given, Residuals) else 0
    order = [*host.tower_hosts, ""]
    last_tower = max((site.tower for site in request.sites), key=order.index)
    begun = None
    if any(site.tower for site in request.sites):
        only = alone(host, request.sites)
        begun = [only] if only else [prefix for prefix in order[: order.index(last_tower) + 1] if prefix]
    ends = [site for site in request.sites if site.tower == last_tower and site.rank is not None]
    last = max(ends, key=lambda site: site.rank or (-1, 0)) if request.stops else None
    return layers_run(host, begun, last, first)


def _seconds(
    chosen: Schedule, base: Rate | None, whole: Rate | None, share: float, columns: int
) -> tuple[float | None, str]:
    """Seconds and what they were measured on; the head counts by the share of columns that it runs for."""
    if base is None:
        return None, ""
    seconds = base.seconds(chosen.forwards, share if share else 1.0)
    if whole is None:
        return seconds, base.basis
    extra = max(0.0, whole.seconds(chosen.forwards) - base.seconds(chosen.forwards))
    width = max((width for _, width in chosen.forwards), default=1)
    return seconds + extra * min(1.0, columns / max(1, width) if columns else 1.0), whole.basis
