"""How an edit by row acts on one activation: rows that can be edited in one step are, others one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch

from ..errors import BadInput, NotSupported
from .base import Change, Places, SiteEdit

if TYPE_CHECKING:
    from torch import Tensor

    from .rows import RowsEdit


class RowPlaces(Places, Protocol):
    """What the engine tells an edit by row besides."""

    @property
    def numbers(self) -> tuple[int, ...]:
        """The number of each row's prompt."""

    @property
    def prompts(self) -> int:
        """How many prompts there are, of which these rows may be a part."""

    def of_rows(self, rows: tuple[int, ...]) -> RowPlaces:
        """The places of some rows alone."""

    def adopt(self, part: RowPlaces, owner: object) -> None:
        """Count what was selected in a part as selected here, on the account of `owner`."""


class RowsChange:
    """Applies each row's change to its rows; rows that can be edited in one step are."""

    def __init__(self, edit: RowsEdit, own: dict[int, Change]):
        self._edit = edit
        self._steps = _steps(edit, own)
        # The rows of each step, for the prompts that came last: decode steps bring the same ones again and again.
        self._last: tuple[tuple[int, ...], list[tuple[tuple[int, ...], Change]]] = ((), [])

    def __call__(self, h: Tensor, places: Places) -> Tensor:
        rows = _by_row(places)
        self._check(h, rows)
        new = h
        for chosen, change in self._groups(rows.numbers):
            part = rows.of_rows(chosen)
            if len(chosen) == len(h):
                new = change(h, part)
            else:
                index = torch.tensor(chosen, device=h.device)
                before = h[index]
                after = change(before, part)
                if after is not before:
                    new = h.clone() if new is h else new
                    new[index] = after
            rows.adopt(part, self._edit)
        return new

    def _groups(self, numbers: tuple[int, ...]) -> list[tuple[tuple[int, ...], Change]]:
        known, groups = self._last
        if known != numbers:
            found = ((tuple(row for row, number in enumerate(numbers) if number in own), do) for own, do in self._steps)
            groups = [(rows, do) for rows, do in found if rows]
            self._last = (numbers, groups)
        return groups

    def _check(self, h: Tensor, places: RowPlaces) -> None:
        count = len(self._edit.rows)
        if count != places.prompts:
            raise BadInput(
                f"the edit by row has {_count(count, 'row')}, but {_count(places.prompts, 'prompt')} came: give one "
                "edit, or None, for each prompt, in their order"
            )
        if h.shape[0] != len(places.numbers):
            raise NotSupported(
                f"an edit by row cannot act where prompts are no longer rows: the activation has {h.shape[0]} entries "
                f"for {len(places.numbers)} rows"
            )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _by_row(places: Any) -> RowPlaces:
    if not hasattr(places, "of_rows"):
        raise NotSupported("an edit by row needs the engine's own forward: use model.edited")
    return places


def _steps(edit: RowsEdit, own: dict[int, Change]) -> list[tuple[frozenset[int], Change]]:
    """What to do one after the other: the numbers of some prompts and a change that is right for all of them."""
    alike: dict[Any, dict[int, SiteEdit]] = {}
    for number in own:
        part = edit.rows[number]
        key = _kind(part) if isinstance(part, SiteEdit) else None
        if key is not None:
            alike.setdefault(key, {})[number] = part  # type: ignore[assignment]
    stacked = [leaves for leaves in alike.values() if len({id(leaf) for leaf in leaves.values()}) > 1]
    steps: list[tuple[frozenset[int], Change]] = [(frozenset(leaves), _Stacked(leaves)) for leaves in stacked]
    done = {number for leaves in stacked for number in leaves}
    shared: dict[int, list[int]] = {}
    for number, change in own.items():
        if number not in done:
            shared.setdefault(id(change), []).append(number)
    return steps + [(frozenset(numbers), own[numbers[0]]) for numbers in shared.values()]


def _kind(leaf: SiteEdit) -> Any:
    """What leaves have in common that can be applied in one step; None where one cannot be."""
    operator = leaf.operator
    narrow = (leaf.features, leaf.heads, leaf.keys, leaf.experts)
    if not operator.elementwise or operator.trained or operator.settings() or any(part is not None for part in narrow):
        return None
    shapes = tuple((name, tuple(value.shape), value.dtype) for name, value in operator.tensors().items())
    return type(operator), leaf.positions.text, shapes


class _Stacked:
    """Leaves of one kind, each for its own prompt, in one step: their tensors and strengths become rows."""

    def __init__(self, leaves: dict[int, SiteEdit]):
        self._leaves = leaves
        self.positions = next(iter(leaves.values())).positions
        self._last: tuple[Any, Any, Tensor | None] = (None, None, None)

    def __call__(self, h: Tensor, places: Any) -> Tensor:
        chosen = places.select(self.positions)
        if chosen is None:
            return h
        mask, index = chosen
        operator, strength = self._at(places.numbers, h)
        if strength is None:
            new = operator(h, index)
        else:
            # A strength of 1 is the operator itself, as it is for a row alone.
            new = torch.where(strength == 1, operator(h, index), h + strength * operator.change(h, index))
        return new if mask is None else torch.where(mask.reshape(*mask.shape, *[1] * (h.dim() - mask.dim())), new, h)

    def _at(self, numbers: tuple[int, ...], h: Tensor) -> tuple[Any, Tensor | None]:
        """The operator with tensors of one row for each row of `h`, and strengths, None where all of them are 1."""
        key = (numbers, h.device, h.dtype, h.dim())
        last = self._last
        if last[0] != key:
            leaves = [self._leaves[number] for number in numbers]
            names = leaves[0].operator.tensors()
            stacks = {name: torch.stack([leaf.operator.tensors()[name] for leaf in leaves]) for name in names}
            tensors = {name: _as_rows(stack, h) for name, stack in stacks.items()}
            strengths = torch.tensor([leaf.strength for leaf in leaves], dtype=torch.float64)
            scale = None if bool((strengths == 1).all()) else _as_rows(strengths, h)
            last = self._last = (key, leaves[0].operator.with_tensors(tensors), scale)
        return last[1], last[2]


def _as_rows(rows: Tensor, h: Tensor) -> Tensor:
    """Tensors of one row each, stacked, with axes of size 1 for what lies between row and width in `h`."""
    rows = rows.to(h.device, h.dtype)
    return rows.reshape(len(rows), *[1] * (h.dim() - rows.dim()), *rows.shape[1:])
