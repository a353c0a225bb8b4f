"""Results of several forwards in memory, each value put in its place as it is seen."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ...batches import Batch
from ...host import SiteInfo
from .gather import kept_axes
from .one_forward import Sinks
from .request import Request
from .rows import Rows, nothing


class InMemory:
    """One tensor for each site, made when its first part comes."""

    def __init__(self, batch: Batch, request: Request):
        self._rows = Rows(batch, request)
        self._batch = batch
        self._request = request
        self._whole: dict[str, Tensor] = {}

    def sinks(self, rows: Tensor) -> Sinks:
        first = self._rows.first_column(rows)
        return {site.address: partial(self._put, site, rows, first) for site in self._request.sites}

    def tensors(self) -> dict[str, Tensor]:
        return {site.address: self._whole[site.address] for site in self._request.sites}

    def _put(self, info: SiteInfo, rows: Tensor, first: int, value: Tensor, shape: torch.Size) -> None:
        axes, site = kept_axes(info, shape, self._request, value.dim(), single=False), info.address
        if site not in self._whole:
            self._whole[site] = self._empty(site, value, axes)
        whole = self._whole[site]
        rows = rows.to(whole.device)
        if axes[-1] == "key":
            whole = whole[..., first : first + value.shape[-1]]
        if site in self._rows.by_position:
            places = [place for row in rows.tolist() for place in self._rows.positions(row)]
            whole[torch.tensor(places, dtype=torch.long, device=whole.device)] = value
        elif axes[:2] == ("example", "token"):
            whole[rows, first : first + value.shape[1]] = value
        else:
            whole[rows] = value

    def _empty(self, site: str, value: Tensor, axes: tuple[str, ...]) -> Tensor:
        batch, shape = self._batch, list(value.shape)
        if site in self._rows.by_position:
            shape[0] = self._rows.count
        elif axes[:2] == ("example", "token"):
            shape[:2] = [len(batch), batch.width]
        else:
            shape[0] = len(batch)
        if axes[-1] != "key":
            return value.new_zeros(shape)
        return value.new_full((*shape[:-1], batch.width), nothing(site))
