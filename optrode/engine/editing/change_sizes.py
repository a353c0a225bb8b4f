"""How large the changes of an edit were, added up now and then rather than at every call."""

from __future__ import annotations

import torch
from torch import Tensor

# Positions that wait to be added up: a few hundred decode steps, or one long prompt.
_MOST_WAITING = 16_384


class ChangeSizes:
    """Sizes of changes and of what they were made to, one pair for each position, kept on their own device.

    A decode step would take longer to add up a handful of numbers than to make the change itself, so that they wait
    until there are many or until somebody asks.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[Tensor, Tensor]] = []
        self._positions = 0
        self._changed = 0
        self._total = 0.0
        self._largest = torch.tensor(0.0, dtype=torch.float64)
        self._size = torch.tensor(0.0, dtype=torch.float64)

    def add(self, size: Tensor, base: Tensor) -> None:
        """Count |new - old| and |old| of some positions, without waiting for their device."""
        self._waiting.append((size.flatten(), base.flatten()))
        self._positions += size.numel()
        if self._positions > _MOST_WAITING:
            self._settle()

    @property
    def changed(self) -> int:
        """Positions that came out different."""
        self._settle()
        return self._changed

    @property
    def total(self) -> float:
        """Sum of the relative changes."""
        self._settle()
        return self._total

    @property
    def largest(self) -> float:
        """The largest relative change."""
        self._settle()
        return float(self._largest)

    @property
    def finite(self) -> bool:
        """Whether every change was a number."""
        self._settle()
        return bool(torch.isfinite(self._size))

    def _settle(self) -> None:
        waiting, self._waiting, self._positions = self._waiting, [], 0
        if not waiting:
            return
        with torch.no_grad():
            size, base = (torch.cat(parts) for parts in zip(*waiting, strict=True))
            if not size.numel():
                return
            changed, relative = compared(size, base)
            self._changed += int(changed.sum())
            self._total += float(relative.sum())
            # NaN survives the maximum; that is how a strength that is too large is found.
            self._largest = torch.maximum(self._largest, relative.max().cpu().double())
            self._size = torch.maximum(self._size, size.max().cpu().double())


def compared(size: Tensor, base: Tensor) -> tuple[Tensor, Tensor]:
    """Which positions changed, and by which part of what was there: |new - old| / |old|."""
    changed = size != 0
    # Where the activation was zero, all of the new one is change.
    return changed, torch.where(base > 0, size / base, changed.to(size.dtype))
