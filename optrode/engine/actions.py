"""What a session does at one site: a tap keeps the activation, an edit action changes it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..edits.base import Change
from ..host import SiteInfo
from ..positions import Positions
from .places import Places
from .receipt import SiteReceipt


class StopForward(BaseException):
    """Ends a forward after the last site that was asked for. Not an Exception, so that no host code swallows it."""


@dataclass
class Tap:
    """Collects one site. Values are copied at once, so that no view keeps a whole activation alive."""

    site: SiteInfo
    positions: Positions | None
    keep_graph: bool
    device: torch.device | None = None
    dtype: torch.dtype | None = None
    value: Tensor | None = None
    source: Tensor | None = None
    fired: int = 0
    version: int = 0
    picked: Tensor | None = None

    @property
    def overwritten(self) -> bool:
        """Whether the network changed the activation in place after it was taken (only where nothing is copied)."""
        return self.keep_graph and self.value is not None and self.value._version != self.version

    def take(self, h: Tensor, places: Places) -> None:
        """Keep `h`: whole as [example, token, ...], or its selected positions as [position, ...]."""
        if self.positions is not None:
            chosen = places.select(self.positions)
            empty = chosen is None
            mask = None if chosen is None else chosen[0]
            self.picked = mask if mask is not None else torch.full(h.shape[:2], not empty, device=h.device)
            h = h[self.picked]
        if self.keep_graph:
            self.value, self.version = h, h._version
        else:
            # Numbers of experts are no measurements: no precision is asked for them.
            device, dtype = self.device or h.device, (self.dtype if h.is_floating_point() else None) or h.dtype
            self.value = h.detach().to(device, dtype, copy=True)
        self.fired += 1


@dataclass
class EditAction:
    """One edit at one site. `remembers` marks the half that only notes the block's input for a site like `mid`."""

    site: SiteInfo
    change: Change
    receipt: SiteReceipt
    residual: dict[str, Tensor] = field(default_factory=dict)
