"""Edits as modules of a graph: every tensor a buffer, no question asked of any context."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...edits.base import Chain, SiteEdit, SiteEditBase, Sum
from ...edits.operators import AddByPosition, Function, Operator
from ...errors import NotSupported

# What a selection means in the forward at hand: mask (None for all) and running numbers, [example, token].
Chosen = tuple["Tensor | None", "Tensor | None"]
# By the text of the selection; None where nothing is selected.
Selected = dict[str, "Chosen | None"]


class Operation(nn.Module):
    """An operator whose tensors are buffers. They stay float32 at least, as an edit's arithmetic does."""

    def __init__(self, operator: Operator, device: torch.device, dtype: torch.dtype):
        super().__init__()
        self.name = operator.name
        # The operator's own code, with this module in the place of the operator.
        self._rule: Callable[..., Tensor] = type(operator).__call__
        self._rule_of_change: Callable[..., Tensor] = type(operator).change
        for name, value in operator.tensors().items():
            self.register_buffer(name, value.detach().to(device, dtype, copy=True))
        for name, number in operator.settings().items():
            setattr(self, name, number)

    def forward(self, h: Tensor, index: Tensor | None) -> Tensor:
        return self._rule(self, h, index)

    def change(self, h: Tensor, index: Tensor | None) -> Tensor:
        return self._rule_of_change(self, h, index)

    def _apply(self, fn: Any, recurse: bool = True) -> Operation:
        for name, value in self._buffers.items():
            if value is not None:
                new = fn(value)
                self._buffers[name] = value.to(new.device) if new.dtype in (torch.float16, torch.bfloat16) else new
        return self

    def extra_repr(self) -> str:
        shapes = [f"{name} {list(value.shape)}" for name, value in self._buffers.items() if value is not None]
        return ", ".join([self.name, *shapes])


class Leaf(nn.Module):
    """One operator at some positions, heads, features and keys: `SiteEdit` as a module.

    `forward(h, selected)` with h [example, token, ..., feature] in float32 or wider.
    """

    def __init__(self, edit: SiteEdit, device: torch.device, dtype: torch.dtype):
        super().__init__()
        if isinstance(edit.operator, Function):
            raise NotSupported("a function edit is code, not tensors, so it cannot be baked: use one of the operators")
        self.operation = Operation(edit.operator, device, dtype)
        self.strength = edit.strength
        self.positions = edit.positions.text
        self.keys = None if edit.keys is None or edit.keys.text == "all" else edit.keys.text
        # Every position alike: nothing has to be known about them. What happens to padding reaches no real token.
        self.everywhere = self.positions == "all" and not isinstance(edit.operator, AddByPosition)
        for name, chosen in (("heads", edit.heads), ("features", edit.features)):
            index = None if chosen is None else torch.tensor(chosen, device=device)
            self.register_buffer(name, index, persistent=False)

    heads: Tensor | None
    features: Tensor | None

    def forward(self, h: Tensor, selected: Selected) -> Tensor:
        mask, index = None, None
        if not self.everywhere:
            chosen = selected[self.positions]
            if chosen is None:
                return h
            mask, index = (_last_columns(part, h.shape[1]) for part in chosen)
        new = self._narrowed(h, index)
        if self.keys is not None:
            looked_at = selected[f"keys {self.keys}"]
            assert looked_at is not None and looked_at[0] is not None
            new = torch.where(looked_at[0][:, None, None], new, h)
        return new if mask is None else torch.where(mask.reshape(*mask.shape, *[1] * (h.dim() - 2)), new, h)

    def _narrowed(self, h: Tensor, index: Tensor | None) -> Tensor:
        if self.heads is None:
            return self._on_features(h, index)
        new = h.clone()
        new[..., self.heads, :] = self._on_features(h[..., self.heads, :], index)
        return new

    def _on_features(self, h: Tensor, index: Tensor | None) -> Tensor:
        if self.features is None:
            return self._applied(h, index)
        new = h.clone()
        new[..., self.features] = self._applied(h[..., self.features], index)
        return new

    def _applied(self, h: Tensor, index: Tensor | None) -> Tensor:
        if self.strength == 1:
            return self.operation(h, index)
        return h + self.strength * self.operation.change(h, index)

    def extra_repr(self) -> str:
        chosen = {"heads": self.heads, "features": self.features}
        narrow = [f"{name}={value.tolist()}" for name, value in chosen.items() if value is not None]
        keys = [] if self.keys is None else [f"keys='{self.keys}'"]
        return ", ".join([f"positions='{self.positions}'", f"strength={self.strength:g}", *narrow, *keys])


class Added(nn.Module):
    """Changes taken from the same activation and added: `Sum` as a module."""

    def __init__(self, parts: list[nn.Module]):
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, h: Tensor, selected: Selected) -> Tensor:
        new = h
        for part in self.parts:
            new = new + (part(h, selected) - h)
        return new


class Chained(nn.Module):
    """One after the other: `Chain` as a module."""

    def __init__(self, parts: list[nn.Module], strength: float):
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.strength = strength

    def forward(self, h: Tensor, selected: Selected) -> Tensor:
        new = h
        for part in self.parts:
            new = part(new, selected)
        return new if self.strength == 1 else h + self.strength * (new - h)

    def extra_repr(self) -> str:
        return f"strength={self.strength:g}"


def as_module(
    edit: SiteEditBase,
    address: str,
    matches: Callable[[str, str], bool],
    device: torch.device,
    dtype: torch.dtype,
) -> nn.Module | None:
    """What happens at `address` as a module, or None; as `edit.at(address, matches)` gives it as a function."""
    if isinstance(edit, SiteEdit):
        there = edit.strength != 0 and matches(edit.site, address)
        return Leaf(edit, device, dtype) if there else None
    if not isinstance(edit, Sum | Chain):
        raise NotSupported(
            f"a {type(edit).__name__} cannot be baked: sums and chains of edits that hold for every row can"
        )
    made = (as_module(part, address, matches, device, dtype) for part in edit.parts)
    parts = [part for part in made if part is not None]
    if isinstance(edit, Sum):
        return Added(parts) if len(parts) > 1 else next(iter(parts), None)
    return Chained(parts, edit.strength) if parts and edit.strength else None


def _last_columns(tensor: Tensor | None, count: int) -> Tensor | None:
    """Heads are often given the last columns only, the ones whose logits are needed."""
    return None if tensor is None else tensor[:, tensor.shape[1] - count :]
