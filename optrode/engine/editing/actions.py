"""What a session does at one site: a tap keeps the activation, an edit action changes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...edits.base import Change
from ...host import SiteInfo
from ...positions import Positions
from ..axes import axes_of, has_tokens
from ..places import Places
from ..reading.reductions import Reduction
from .receipt import SiteReceipt


class StopForward(BaseException):
    """Ends a forward after the last site that was asked for. Not an Exception, so that no host code swallows it."""


@dataclass
class Tap:
    """Collects one site. Values are copied at once, so that no view keeps a whole activation alive.

    With a `sink` the value goes there, with the shape of the whole activation, and nothing is kept. A `late` one keeps
    what comes, to be picked from afterwards. `shape` and `own_dtype` are the whole activation's.
    """

    site: SiteInfo
    positions: Positions | None
    keep_graph: bool
    device: torch.device | None = None
    dtype: torch.dtype | None = None
    reduction: Reduction | None = None
    sink: Callable[[Tensor, torch.Size], None] | None = None
    late: bool = False
    value: Tensor | None = None
    source: Tensor | None = None
    fired: int = 0
    version: int = 0
    picked: Tensor | None = None
    shape: torch.Size | None = None
    own_dtype: torch.dtype | None = None
    # Whether a graph begins here where nothing upstream asks for gradients.
    begins_graph: bool = True

    @property
    def overwritten(self) -> bool:
        """Whether the network changed the activation in place after it was taken (only where nothing is copied)."""
        return self.keep_graph and self.value is not None and self.value._version != self.version

    def take(self, h: Tensor, places: Places) -> None:
        """Keep `h`: whole as [example, token, ...], its selected positions as [position, ...], or reduced."""
        self.shape, self.own_dtype = h.shape, h.dtype
        self.fired += 1
        if self.late:
            self.value, self.version = (h, h._version) if self.keep_graph else (h.detach().clone(), 0)
            return
        if self.reduction is not None and self.reduction.over_tokens:
            axes = axes_of(self.site, h.dim())
            if self.reduction.applies(self.site, axes):
                h = self.reduction(h, self._counted(h, places), axes)
        else:
            if self.positions is not None:
                self.picked = self._selected(self.positions, h, places)
                h = h[self.picked]
            if self.reduction is not None:
                h = self.reduction(h, None, ())
        self.keep(h)

    def keep(self, h: Tensor) -> None:
        """Copy `h` in the dtype and to the place that were asked for."""
        if self.keep_graph:
            self.value, self.version = h, h._version
            return
        # Numbers of experts are no measurements: no precision is asked for them.
        device, dtype = self.device or h.device, (self.dtype if h.is_floating_point() else None) or h.dtype
        if self.sink is None:
            self.value = h.detach().to(device, dtype, copy=True)
        else:
            assert self.shape is not None
            self.sink(h.detach().to(device, dtype), self.shape)
            self.value = h.new_empty((0,) * h.dim())

    def _selected(self, positions: Positions, h: Tensor, places: Places) -> Tensor:
        chosen = places.select(positions)
        empty = chosen is None
        mask = None if chosen is None else chosen[0]
        return mask if mask is not None else torch.full(h.shape[:2], not empty, device=h.device)

    def _counted(self, h: Tensor, places: Places) -> Tensor | None:
        """The tokens that count in a reduction over tokens; None for all of them."""
        if not has_tokens(self.site) or h.dim() < 3:
            return None
        return self._selected(self.positions or Positions("all"), h, places)


@dataclass
class EditAction:
    """One edit at one site. `trained` says that gradients of the edit's own tensors are wanted."""

    site: SiteInfo
    change: Change
    receipt: SiteReceipt
    trained: bool = False
