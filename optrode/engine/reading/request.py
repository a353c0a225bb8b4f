"""What a read wants, resolved against the network."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...batches import Batch
from ...errors import BadInput, NotSupported
from ...host import SiteInfo
from ...positions import Positions
from ...towers import DECODER
from ..axes import has_tokens, outside_base
from .reductions import Reduction


@dataclass(frozen=True)
class Request:
    """What a read wants, resolved against the network."""

    sites: list[SiteInfo]
    positions: Positions | None
    grad: bool = False
    device: torch.device | None = None
    dtype: torch.dtype | None = None
    reduction: Reduction | None = None

    def __post_init__(self) -> None:
        if self.grad and self.reduction is not None:
            raise NotSupported("grad=True keeps whole activations, so nothing is saved: reduce what was read instead")

    @property
    def head(self) -> bool:
        return any(site.address == "logits" or outside_base(site) for site in self.sites)

    @property
    def stops(self) -> bool:
        return all(site.rank is not None for site in self.sites)

    @property
    def whole(self) -> bool:
        """Whether it has to be one forward: a graph is one, and a decoder's tokens are none that batches are cut by."""
        return self.grad or any(site.tower == DECODER for site in self.sites)

    @property
    def by_position(self) -> bool:
        """Whether results have an axis of positions: some were selected, and none is reduced away."""
        return self.positions is not None and (self.reduction is None or not self.reduction.over_tokens)

    @property
    def pooled(self) -> bool:
        """Whether every example keeps one value."""
        return self.reduction is not None and self.reduction.over_tokens

    def kept_dtype(self, own: torch.dtype) -> torch.dtype:
        """The dtype in which a site of dtype `own` is kept; numbers of experts are no measurements."""
        return self.dtype if self.dtype is not None and own.is_floating_point else own

    def places(self, batch: Batch | None) -> Tensor | None:
        """Example and column of every position that is kept, [position, 2]; None where rows are kept whole."""
        if batch is None or self.positions is None or not self.by_position:
            return None
        return self.positions.in_prompt(batch).nonzero()

    def check(self, batch: Batch) -> None:
        """Refuse what would read nothing."""
        if not len(batch):
            raise BadInput("no prompt was given: pass at least one")
        if not any(map(has_tokens, self.sites)) or (self.positions is None and not self.pooled):
            return
        chosen = (self.positions or Positions("all")).in_prompt(batch).any(1)
        if self.positions is not None and not bool(chosen.any()):
            raise BadInput(
                f"positions '{self.positions}' select no token of these prompts, so there is nothing to read"
            )
        if self.pooled and not bool(chosen.all()):
            row = int(chosen.long().argmin())
            raise BadInput(f"positions '{self.positions}' select no token of prompt {row}: nothing to reduce there")
