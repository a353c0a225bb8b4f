"""Putting what one forward left in its taps together, with named axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from ...activations import Activations
from ...batches import Batch
from ...host import Host, SiteInfo
from ..axes import axes_of
from ..editing.actions import Tap
from ..editing.session import Session
from ..views import site_view
from .request import Request
from .shapes import note


def gather(host: Host, batch: Batch | None, request: Request, taps: list[Tap], session: Session) -> Activations:
    values: dict[str, Tensor] = {}
    axes: dict[str, tuple[str, ...]] = {}
    note(host, taps)
    places = request.places(batch)
    single = is_single(places, batch)
    for tap in taps:
        assert tap.value is not None and tap.shape is not None
        values[tap.site.address] = tap.value
        axes[tap.site.address] = kept_axes(tap.site, tap.shape, request, tap.value.dim(), single)
    sources = {tap.site.address: (tap.source, _viewer(host, tap, session)) for tap in taps if tap.source is not None}
    return Activations(
        values, axes, batch, places, host.tokenizer,
        session.receipt.layers_run, session.receipt.layers_skipped, sources, session.receipt.tokens_by_expert,
    )  # fmt: skip


def _viewer(host: Host, tap: Tap, session: Session) -> Callable[[Tensor], Tensor]:
    rows, picked = session.forward.rows if session.forward else 1, tap.picked

    def view(gradient: Tensor) -> Tensor:
        whole = site_view(host, tap.site, gradient, rows)
        return whole if picked is None else whole[picked.to(whole.device)]

    return view


def is_single(places: Tensor | None, batch: Batch | None) -> bool:
    """Whether every row has exactly one position."""
    return places is not None and batch is not None and places[:, 0].tolist() == list(range(len(batch)))


def kept_axes(site: SiteInfo, shape: Sequence[int], request: Request, dims: int, single: bool) -> tuple[str, ...]:
    """The axes of what is kept, of `dims` axes, of a site whose whole activation has `shape`."""
    reduction = request.reduction
    if reduction is None:
        return axes_of(site, dims, request.by_position, single)
    if reduction.over_tokens:
        whole = axes_of(site, len(shape))
        return reduction.axes(whole, dims) if reduction.applies(site, whole) else whole
    return reduction.axes(axes_of(site, dims + 1, request.by_position, single), dims)
