"""What an edit really did: the receipt that `with model.edited(edit) as receipt:` gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass
class SiteReceipt:
    """Counts of one site. `selected` positions were offered to the edit, `changed` ones came out different.

    `relative_change` is the mean of |new - old| / |old| over changed positions, `largest_change` its maximum.
    """

    address: str
    calls: int = 0
    prefill_calls: int = 0
    decode_calls: int = 0
    rows: int = 0
    _selected: Any = 0
    _changed: Any = 0
    _total: Any = 0.0
    _largest: Any = 0.0

    @property
    def selected(self) -> int:
        return int(self._selected)

    @property
    def changed(self) -> int:
        return int(self._changed)

    @property
    def relative_change(self) -> float:
        return float(self._total) / max(1, self.changed)

    @property
    def largest_change(self) -> float:
        return float(self._largest)

    def record(self, old: Tensor, new: Tensor, decode: bool) -> None:
        """Count one call. Sums stay on the activation's device, so that nothing waits for it."""
        self.calls += 1
        self.decode_calls += decode
        self.prefill_calls += not decode
        self.rows = max(self.rows, old.shape[0])
        if new is old:
            return
        with torch.no_grad():
            size = (new - old).flatten(2).norm(dim=-1) if old.dim() > 3 else (new - old).norm(dim=-1)
            base = old.flatten(2).norm(dim=-1) if old.dim() > 3 else old.norm(dim=-1)
            changed = size != 0
            relative = torch.where(changed, size / base.clamp(min=torch.finfo(base.dtype).tiny), torch.zeros_like(size))
            self._changed = self._changed + changed.sum()
            self._total = self._total + relative.sum()
            # NaN must survive the maximum, since that is how a strength that is too large is found.
            self._largest = torch.maximum(torch.as_tensor(self._largest, device=relative.device), relative.max())

    @property
    def finite(self) -> bool:
        return bool(torch.isfinite(torch.as_tensor(self._largest)))


@dataclass
class Receipt:
    """What happened while an edit was active.

    `sites` lists every matched site, those that never ran too; `layers_run` and `layers_skipped` speak of the last
    forward; `notes` says what the engine decided on its own, such as a resume that was refused.
    """

    sites: dict[str, SiteReceipt] = field(default_factory=dict)
    forwards: int = 0
    layers_run: int = 0
    layers_skipped: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def calls(self) -> int:
        return sum(site.calls for site in self.sites.values())

    @property
    def changed(self) -> int:
        return sum(site.changed for site in self.sites.values())

    @property
    def relative_change(self) -> float:
        """Mean size of the change relative to the activation it was made to, over all changed positions."""
        return sum(float(site._total) for site in self.sites.values()) / max(1, self.changed)

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def __str__(self) -> str:
        fired = [site for site in self.sites.values() if site.calls]
        lines = [
            f"{len(fired)} of {len(self.sites)} matched sites ran in {self.forwards} forwards; "
            f"{self.changed} positions changed by {self.relative_change:.1%} of their norm on average; "
            f"{self.layers_run} layers run, {self.layers_skipped} skipped"
        ]
        lines += [
            f"  {site.address}: {site.prefill_calls} prefill + {site.decode_calls} decode calls, {site.rows} rows, "
            f"{site.selected} positions selected, {site.changed} changed, mean {site.relative_change:.1%}, "
            f"largest {site.largest_change:.1%}"
            for site in fired
        ]
        return "\n".join(lines + [f"  note: {text}" for text in self.notes])
