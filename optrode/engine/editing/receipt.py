"""What an edit really did: the receipt that `with model.edited(edit) as receipt:` gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from ...edits.conditions import Condition
from ...edits.words import ranges
from ...errors import NotSupported
from ...positions import Positions
from .change_sizes import ChangeSizes, compared
from .row_counts import RowCounts, RowReceipt, row_receipts
from .scope import Scope

Given = ParamSpec("Given")
Result = TypeVar("Result")


@dataclass
class ConditionReceipt:
    """What one condition decided: its value and whether it was met, by the number of the prompt."""

    condition: str
    values: dict[int, float] = field(default_factory=dict)
    met: dict[int, bool] = field(default_factory=dict)

    def __str__(self) -> str:
        yes = [number for number, met in self.met.items() if met]
        span = f", values {min(self.values.values()):.3g} to {max(self.values.values()):.3g}" if self.values else ""
        return f"{self.condition}: met by {len(yes)} of {len(self.met)} prompts ({ranges(yes) or 'none'}){span}"


def _by_number(known: dict[int, Any], numbers: tuple[int, ...], new: list[Any]) -> dict[int, Any]:
    """What is known of prompts, in their order, whatever order they ran in."""
    return dict(sorted((known | dict(zip(numbers, new, strict=True))).items()))


@dataclass
class SiteReceipt:
    """Counts of one site. `selected` positions were offered to the edit, `changed` ones came out different.

    `relative_change` is the mean of |new - old| / |old| over changed positions, `largest_change` its maximum; a change
    of a zero activation counts as 1. Under an edit by row, `by_row` has the same for each prompt.
    """

    address: str
    calls: int = 0
    prefill_calls: int = 0
    decode_calls: int = 0
    rows: int = 0
    _selected: Any = 0
    _by_positions: dict[str, Any] = field(default_factory=dict)
    _by_experts: dict[tuple[tuple[int, ...], str], Any] = field(default_factory=dict)
    sizes: ChangeSizes = field(default_factory=ChangeSizes, repr=False)
    row_counts: RowCounts | None = None
    decided: dict[Condition, ConditionReceipt] = field(default_factory=dict, repr=False)
    # By conditional edit: the prompts that it acts on.
    acts: dict[object, set[int]] = field(default_factory=dict, repr=False)

    @property
    def selected(self) -> int:
        return int(self._selected)

    @property
    def changed(self) -> int:
        return self.sizes.changed

    @property
    def relative_change(self) -> float:
        return self.sizes.total / max(1, self.changed)

    @property
    def largest_change(self) -> float:
        return self.sizes.largest

    @property
    def said(self) -> str:
        """What the line of this site says besides."""
        return ""

    @property
    def by_row(self) -> dict[int, RowReceipt]:
        """What happened to each prompt's row, by its number; empty where no edit by row acted."""
        return row_receipts([self.row_counts]) if self.row_counts is not None else {}

    def selected_by(self, positions: Positions) -> int:
        """How many positions one selection gave, of the several that a sum or chain of edits may have."""
        return int(self._by_positions.get(positions.text, 0))

    def routed_by(self, experts: tuple[int, ...], positions: Positions) -> int:
        """How often a selected token had chosen one of `experts`."""
        return int(self._by_experts.get((experts, positions.text), 0))

    def offer_experts(self, pairs: dict[tuple[tuple[int, ...], str], Tensor]) -> None:
        for key, count in pairs.items():
            self._by_experts[key] = self._by_experts.get(key, 0) + count

    def offer_conditions(
        self,
        decided: list[tuple[Condition, tuple[int, ...], Tensor, Tensor]],
        acts: list[tuple[object, tuple[int, ...], Tensor]],
    ) -> None:
        """Keep what conditions decided here, and which prompts are acted on. The last answer of a prompt counts."""
        for condition, numbers, values, met in decided:
            known = self.decided.setdefault(condition, ConditionReceipt(str(condition)))
            known.values = _by_number(known.values, numbers, values.tolist())
            known.met = _by_number(known.met, numbers, met.tolist())
        for edit, numbers, chosen in acts:
            met_by = self.acts.setdefault(edit, set())
            met_by.update(number for number, yes in zip(numbers, chosen.tolist(), strict=True) if yes)

    def offer(self, offered: dict[str, tuple[Tensor | None, int]]) -> None:
        """Count what each selection gave in one call: a mask, or None and the number of all positions."""
        for text, (mask, count) in offered.items():
            self._by_positions[text] = self._by_positions.get(text, 0) + (count if mask is None else mask.sum())
        masks = [mask for mask, _ in offered.values()]
        if any(mask is None for mask in masks):
            self._selected = self._selected + max(count for _, count in offered.values())
        elif masks:
            self._selected = self._selected + torch.stack(masks).any(0).sum()  # type: ignore[arg-type]

    def record(self, old: Tensor, new: Tensor, decode: bool, headed: bool = False, rows: Any = None) -> None:
        """Count one call. Sums stay on the activation's device, so that nothing waits for it.

        A position is one vector along the last axis; `headed` says that its heads, the axis before, belong together.
        `rows`: the places at which edits by row acted.
        """
        self.calls += 1
        self.decode_calls += decode
        self.prefill_calls += not decode
        self.rows = max(self.rows, old.shape[0])
        if new is old:
            return
        with torch.no_grad():
            size, base = (torch.linalg.vector_norm(value, dim=-1) for value in (new - old, old))
            if headed:
                size, base = (torch.linalg.vector_norm(value, dim=-1) for value in (size, base))
            self.sizes.add(size, base)
            if rows is not None and rows.by_row:
                self.row_counts = self.row_counts or RowCounts(rows.numbers, rows.prompts)
                self.row_counts.add(rows.numbers, rows.by_row, *compared(size, base))

    @property
    def finite(self) -> bool:
        return self.sizes.finite


@dataclass
class Receipt:
    """What happened while an edit was active.

    `sites` lists every matched site, those that never ran too; `layers_run` and `layers_skipped` speak of the last
    forward, which began at block `first_layer`; `notes` says what the engine decided on its own, such as a resume that
    was refused. `tokens_by_expert` counts, for each layer whose router or experts were edited, the tokens that chose
    each expert ([expert] int64).
    `by_row` says what happened to each prompt under an edit by row or on a condition, `conditions` what was decided.
    """

    sites: dict[str, SiteReceipt] = field(default_factory=dict)
    forwards: int = 0
    layers_run: int = 0
    layers_skipped: int = 0
    notes: list[str] = field(default_factory=list)
    tokens_by_expert: dict[str, Tensor] = field(default_factory=dict)
    scope: Scope | None = field(default=None, repr=False, compare=False)
    first_layer: int = 0

    def bind(self, function: Callable[Given, Result]) -> Callable[Given, Result]:
        """`function` for another thread or an executor: wherever it is called, it runs under this block's edits.

        Threads start without the edits of the thread that made them. The bound function runs in a copy of the context
        that this block made (its edits and those around it, whatever is active where it is called) and counts on this
        receipt. Calls must be over when the block ends: a later call, or one that is still running then, raises
        `NotSupported`, since it would have run without the edit.
        """
        if self.scope is None:
            raise NotSupported("this receipt belongs to no block: bind with the one that model.edited gave")
        return self.scope.bind(function)

    @property
    def by_row(self) -> dict[int, RowReceipt]:
        """What happened to each prompt's row, over all sites, by its number; empty where no edit by row acted."""
        return row_receipts([site.row_counts for site in self.sites.values() if site.row_counts is not None])

    @property
    def conditions(self) -> list[ConditionReceipt]:
        """What each condition decided, prompt by prompt."""
        return [known for site in self.sites.values() for known in site.decided.values()]

    def acted_on(self, edit: object) -> set[int]:
        """The numbers of the prompts that an edit on a condition acted on."""
        return {number for site in self.sites.values() for number in site.acts.get(edit, ())}

    @property
    def calls(self) -> int:
        return sum(site.calls for site in self.sites.values())

    @property
    def changed(self) -> int:
        return sum(site.changed for site in self.sites.values())

    @property
    def relative_change(self) -> float:
        """Mean size of the change relative to the activation it was made to, over all changed positions."""
        return sum(site.sizes.total for site in self.sites.values()) / max(1, self.changed)

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def _repr_html_(self) -> str:
        from ...notebook.edits import receipt

        return receipt(self)

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
            f"largest {site.largest_change:.1%}{site.said}"
            for site in fired
        ]
        lines += [
            f"  row {row.number}: {row.selected} positions selected, {row.changed} changed, "
            f"mean {row.relative_change:.1%}"
            for row in self.by_row.values()
        ]
        lines += [f"  {known}" for known in self.conditions]
        return "\n".join(lines + [f"  note: {text}" for text in self.notes])
