"""What an edit really did: the receipt that `with model.edited(edit) as receipt:` gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..positions import Positions


@dataclass
class SiteReceipt:
    """Counts of one site. `selected` positions were offered to the edit, `changed` ones came out different.

    `relative_change` is the mean of |new - old| / |old| over changed positions, `largest_change` its maximum; a change
    of a zero activation counts as 1.
    """

    address: str
    calls: int = 0
    prefill_calls: int = 0
    decode_calls: int = 0
    rows: int = 0
    _selected: Any = 0
    _by_positions: dict[str, Any] = field(default_factory=dict)
    _by_experts: dict[tuple[tuple[int, ...], str], Any] = field(default_factory=dict)
    _changed: Any = 0
    _total: Any = 0.0
    _largest: Any = 0.0
    _size: Any = 0.0

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

    def selected_by(self, positions: Positions) -> int:
        """How many positions one selection gave, of the several that a sum or chain of edits may have."""
        return int(self._by_positions.get(positions.text, 0))

    def routed_by(self, experts: tuple[int, ...], positions: Positions) -> int:
        """How often a selected token had chosen one of `experts`."""
        return int(self._by_experts.get((experts, positions.text), 0))

    def offer_experts(self, pairs: dict[tuple[tuple[int, ...], str], Tensor]) -> None:
        for key, count in pairs.items():
            self._by_experts[key] = self._by_experts.get(key, 0) + count

    def offer(self, offered: dict[str, tuple[Tensor | None, int]]) -> None:
        """Count what each selection gave in one call: a mask, or None and the number of all positions."""
        for text, (mask, count) in offered.items():
            self._by_positions[text] = self._by_positions.get(text, 0) + (count if mask is None else mask.sum())
        masks = [mask for mask, _ in offered.values()]
        if any(mask is None for mask in masks):
            self._selected = self._selected + max(count for _, count in offered.values())
        elif masks:
            self._selected = self._selected + torch.stack(masks).any(0).sum()  # type: ignore[arg-type]

    def record(self, old: Tensor, new: Tensor, decode: bool, headed: bool = False) -> None:
        """Count one call. Sums stay on the activation's device, so that nothing waits for it.

        A position is one vector along the last axis; `headed` says that its heads, the axis before, belong together.
        """
        self.calls += 1
        self.decode_calls += decode
        self.prefill_calls += not decode
        self.rows = max(self.rows, old.shape[0])
        if new is old:
            return
        with torch.no_grad():
            size, base = (new - old).norm(dim=-1), old.norm(dim=-1)
            if headed:
                size, base = size.norm(dim=-1), base.norm(dim=-1)
            changed = size != 0
            # Where the activation was zero, all of the new one is change.
            relative = torch.where(base > 0, size / base, changed.to(size.dtype))
            self._changed = self._changed + changed.sum()
            self._total = self._total + relative.sum()
            # NaN survives the maximum; that is how a strength that is too large is found.
            self._largest = torch.maximum(torch.as_tensor(self._largest, device=relative.device), relative.max())
            self._size = torch.maximum(torch.as_tensor(self._size, device=size.device), size.max())

    @property
    def finite(self) -> bool:
        return bool(torch.isfinite(torch.as_tensor(self._size)))


@dataclass
class Receipt:
    """What happened while an edit was active.

    `sites` lists every matched site, those that never ran too; `layers_run` and `layers_skipped` speak of the last
    forward; `notes` says what the engine decided on its own, such as a resume that was refused. `tokens_by_expert`
    counts, for each layer whose router or experts were edited, the tokens that chose each expert ([expert] int64).
    """

    sites: dict[str, SiteReceipt] = field(default_factory=dict)
    forwards: int = 0
    layers_run: int = 0
    layers_skipped: int = 0
    notes: list[str] = field(default_factory=list)
    tokens_by_expert: dict[str, Tensor] = field(default_factory=dict)

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
