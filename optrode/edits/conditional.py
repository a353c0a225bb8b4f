"""Edits on a condition: whether they act is decided once for each prompt, and kept while its answer is written.

The condition is read in the forward that brings the prompt. Each row of a batch has its own answer, which its written
tokens go by too, with a cache of keys and values or without, padded or not.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import torch

from ..errors import BadInput, NotSupported
from .base import Change, Edit, Provenance, SiteEdit, SiteEditBase
from .conditions import Condition, Conditions
from .row_changes import RowPlaces
from .rows import RowsEdit, rows_edits

if TYPE_CHECKING:
    from torch import Tensor

    from ..positions import Positions


class PromptPlaces(RowPlaces, Protocol):
    """What the engine tells a condition besides."""

    def of_prompt(self, positions: Positions) -> Tensor | None:
        """Which tokens of the prompt are selected, bool [row, token]; None where the forward brings written ones only.

        Raises `NotSupported` where only a part of the selected tokens is there.
        """

    @property
    def forward(self) -> object:
        """The forward at hand, to tell one pass over the prompts from the next."""

    def memory(self, owner: object) -> dict[Any, Any]:
        """What `owner` has to remember of these prompts until they are answered."""

    def decide(self, condition: Condition, values: Tensor, met: Tensor) -> None:
        """Count what was decided of each row."""

    def act(self, edit: object, acts: Tensor) -> None:
        """Count the rows that an edit acts on."""


@dataclass(frozen=True, eq=False)
class ConditionalEdit(SiteEditBase):
    """`edit` on the rows of the prompts that meet `condition`; the others stay bit-equal. Made by `when`."""

    condition: Conditions
    edit: SiteEditBase

    def __mul__(self, strength: float) -> ConditionalEdit:
        return replace(self, edit=self.edit * strength)  # type: ignore[arg-type]

    def patterns(self) -> list[str]:
        return self.edit.patterns()

    def leaves(self) -> list[SiteEdit]:
        return self.edit.leaves()

    def watches(self) -> list[Condition]:
        return list(self.condition.leaves()) if self._does_something else []

    def with_provenance(self, provenance: Provenance) -> ConditionalEdit:
        return replace(self, edit=self.edit.with_provenance(provenance))

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of the edit alone: whether it acts is a step, which has no gradient."""
        return self.edit.tensors()

    def with_tensors(self, tensors: dict[str, Tensor]) -> ConditionalEdit:
        return replace(self, edit=self.edit.with_tensors(tensors))

    def constrained(self) -> ConditionalEdit:
        return replace(self, edit=self.edit.constrained())

    @property
    def _does_something(self) -> bool:
        return any(leaf.strength for leaf in self.edit.leaves())

    def at(self, address: str, matches: Callable[[str, str], bool]) -> Change | None:
        if not self._does_something:
            return None
        watched = [one for one in dict.fromkeys(self.condition.leaves()) if matches(one.site, address)]
        change = self.edit.at(address, matches)
        return _ConditionalChange(self, watched, change) if watched or change is not None else None


def when(condition: Conditions, edit: Edit) -> ConditionalEdit:
    """`edit` only on prompts that meet `condition`, decided row by row from the prompt and kept while it is answered.

    Conditions are made by `condition` and combined with `&`, `|` and `~`. The edit must act no earlier in the network
    than the condition is read. The receipt's `conditions` says what was decided. Costs a mean over the prompt.
    Raises `NotSupported` for edits that are no site edits, by row, or conditional themselves.
    """
    if not isinstance(condition, Conditions):
        raise BadInput(f"when needs a condition, not {type(condition).__name__}: make one with edits.condition")
    if not isinstance(edit, SiteEditBase):
        what = f"a {edit.kind} edit" if isinstance(edit, Edit) else type(edit).__name__
        raise NotSupported(f"when takes a site edit, not {what}")
    if any(True for _ in conditionals(edit)):
        raise NotSupported("this edit has a condition already: combine the two with & or |")
    if any(True for _ in rows_edits(edit)):
        raise NotSupported("an edit by row cannot be put under one condition: give each row its own with when")
    return ConditionalEdit(condition, edit)


def conditionals(edit: Edit) -> Iterator[ConditionalEdit]:
    """The conditional edits that an edit is made of."""
    if isinstance(edit, ConditionalEdit):
        yield edit
    elif isinstance(edit, RowsEdit):
        for _, part in edit.parts():
            yield from conditionals(part)
    elif getattr(edit, "strength", 1.0) != 0:
        for part in getattr(edit, "parts", ()):
            yield from conditionals(part)


class _ConditionalChange:
    """At one site: reads the conditions that are watched there, then changes the rows that meet the whole."""

    def __init__(self, edit: ConditionalEdit, watched: list[Condition], change: Change | None):
        self._edit, self._watched, self._change = edit, watched, change

    def __call__(self, h: Tensor, places: Any) -> Tensor:
        if not hasattr(places, "of_prompt"):
            raise NotSupported("an edit on a condition needs the engine's own forward: use model.edited")
        for one in self._watched:
            self._decide(one, h, places)
        return h if self._change is None else self._on_rows(self._change, h, places)

    def _decide(self, one: Condition, h: Tensor, places: PromptPlaces) -> None:
        mask = places.of_prompt(one.positions)
        if mask is None:
            return
        if h.dim() != 3:
            raise NotSupported(f"{one.site} is not [example, token, feature]: read the condition at a site that is")
        _refuse_empty(one, mask, places)
        with torch.no_grad():
            total = torch.where(mask[..., None], h, torch.zeros_like(h)).sum(1)
            values = one.measure.like(h)(total / mask.sum(-1, keepdim=True))
        met, known = one.met(values), places.memory(self._edit)
        places.decide(one, values, met)
        # Answers of one pass over the prompts belong together, whatever other passes over them go on meanwhile.
        passes = known.setdefault("passes", weakref.WeakKeyDictionary())
        answers = passes.setdefault(places.forward, {})
        answers[one] = met
        if all(leaf in answers for leaf in self._edit.condition.leaves()):
            acts = self._edit.condition.holds(answers)
            known["acts"] = (acts, {})
            places.act(self._edit, acts)

    def _on_rows(self, change: Change, h: Tensor, places: PromptPlaces) -> Tensor:
        rows = self._rows(len(h), places)
        if not rows:
            return h
        part = places.of_rows(rows)
        if len(rows) == len(h):
            new = change(h, part)
        else:
            index = torch.tensor(rows, device=h.device)
            before = h[index]
            after = change(before, part)
            new = h
            if after is not before:
                new = h.clone()
                new[index] = after
        places.adopt(part, self._edit)
        return new

    def _rows(self, count: int, places: PromptPlaces) -> tuple[int, ...]:
        """The rows to act on, as they were decided when the prompts came."""
        if count != len(places.numbers):
            raise NotSupported(
                f"an edit on a condition cannot act where prompts are no longer rows: the activation has {count} "
                f"entries for {len(places.numbers)} rows"
            )
        known = places.memory(self._edit)
        if "acts" not in known:
            raise NotSupported(
                "the condition of the edit was not read: this forward did not bring the prompt, or its site did not run"
            )
        acts, rows = known["acts"]
        if count not in rows:
            # Branches of a prompt stand beside each other and share its answer.
            acts = acts.repeat_interleave(count // len(acts)) if count != len(acts) else acts
            rows[count] = tuple(acts.nonzero().flatten().tolist())
        return rows[count]


def _refuse_empty(one: Condition, mask: Tensor, places: PromptPlaces) -> None:
    empty = ~mask.any(-1)
    if bool(empty.any()):
        number = places.numbers[int(empty.int().argmax())]
        raise BadInput(
            f"the condition at {one.site} has nothing to read: '{one.positions}' selects no token of prompt {number}"
        )
