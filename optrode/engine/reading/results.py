"""What a read will keep, to the byte, before it runs."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TypeAlias

import torch
from torch import Tensor

from ...batches import Batch
from ...errors import NotSupported
from ...host import Host, SiteInfo
from ..axes import axes_of, has_tokens
from ..planning.like import Like
from ..resume import Residuals
from .gather import is_single, kept_axes
from .reductions import Reduction
from .request import Request
from .shapes import Form, forms

Given: TypeAlias = Batch | Tensor | dict[str, Tensor] | Residuals


@dataclass(frozen=True)
class Kept:
    """What is kept of one site."""

    site: str
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


def kept(host: Host, request: Request, inputs: Given, like: Like) -> list[Kept]:
    """The shape, axes and dtype of everything that `read` would return, site by site.

    Raises `NotSupported` where a shape cannot be known before the run.
    """
    batch = inputs.batch if isinstance(inputs, Residuals) else inputs if isinstance(inputs, Batch) else None
    places = request.places(batch)
    single = is_single(places, batch)
    found = forms(host, request.sites, like)
    rows, tokens = (len(batch), batch.width) if batch is not None else (like.rows, like.tokens)
    listed = []
    for site in request.sites:
        form = found[site.address]
        whole = form.at(rows, tokens)
        shape, dtype = _shape(site, form, whole, request, (rows, tokens), places)
        axes = kept_axes(site, whole, request, len(shape), single)
        listed.append(Kept(site.address, axes, shape, request.kept_dtype(dtype)))
    return listed


def _shape(
    site: SiteInfo,
    form: Form,
    whole: tuple[int, ...],
    request: Request,
    size: tuple[int, int],
    places: Tensor | None,
) -> tuple[tuple[int, ...], torch.dtype]:
    reduction = request.reduction
    if reduction is not None and reduction.own is None and not form.dtype.is_floating_point:
        raise NotSupported(f"reduce='{reduction.text}' needs measurements, and {site.address} holds numbers of experts")
    if reduction is not None and reduction.over_tokens:
        axes = axes_of(site, len(whole))
        if not reduction.applies(site, axes):
            return whole, form.dtype
        if reduction.own is not None:
            return _own(site, form, reduction, size, axes)
        left = reduction.axes(axes, 0)
        return (whole[0], *whole[len(whole) - len(left) + 1 :]), form.dtype
    if places is not None and has_tokens(site):
        whole = _selected(site, whole, request, size, len(places))
    return (whole[:-1] if reduction is not None else whole), form.dtype


def _selected(
    site: SiteInfo, whole: tuple[int, ...], request: Request, size: tuple[int, int], count: int
) -> tuple[int, ...]:
    if site.port.axes or whole[:2] == size:
        return (count, *whole[2:])
    if request.positions is not None and request.positions.text != "all":
        raise NotSupported(
            f"positions '{request.positions}' have no meaning at {site.address}, which has no token axis"
        )
    return (prod(whole[:2]), *whole[2:])


def _own(
    site: SiteInfo, form: Form, reduction: Reduction, size: tuple[int, int], axes: tuple[str, ...]
) -> tuple[tuple[int, ...], torch.dtype]:
    """What the caller's function makes of zeros of two rows, which may not depend on the number of tokens."""
    tries = []
    for tokens in (4, 5) if "token" in axes else (size[1],):
        made = reduction(torch.zeros(form.at(2, tokens), dtype=form.dtype), None, axes)
        tries.append((tuple(made.shape[1:]), made.dtype))
    if len(set(tries)) > 1:
        raise NotSupported(
            f"what reduce={reduction.text} makes of {site.address} depends on the number of tokens: "
            "give a function that gives every example the same shape"
        )
    return (size[0], *tries[0][0]), tries[0][1]
