"""What is done at one module of a baked network, before and after its forward, and the class that asks for it."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...table import SiteInfo
from ..recompute import full_precision
from ..views import first_tensor, input_tensor, put_first, site_unview, site_view
from .operations import Selected
from .roles import Carried, Roles

# The name under which a module of a baked network holds what is done there; part of the names in a state dict.
HELD = "optrode"


class HeadCounts:
    """What a view needs to know of a network: how many query and key heads it has."""

    def __init__(self, counts: dict[str, int]):
        self._counts = counts

    def of(self, site: SiteInfo) -> HeadCounts:
        return self

    def head_counts(self) -> dict[str, int]:
        return self._counts


class Written(nn.Module):
    """One site at which an edit writes: from the module's own tensor to the activation, through the edit, and back."""

    def __init__(
        self, site: SiteInfo, counts: HeadCounts, change: nn.Module, selected: Carried[Selected] | None = None,
        entry: Carried[Tensor] | None = None,
    ):  # fmt: skip
        super().__init__()
        self.site = site
        self.change = change
        self._counts = counts
        self._selected = selected
        # What the block was given, for sites that are the sum of that and a part.
        self._entry = entry

    def forward(self, tensor: Tensor) -> Tensor:
        if self._entry is None:
            # Where examples and tokens are one axis, every row is treated alike, as those of one example.
            h = site_view(self._counts, self.site, tensor, 1)
            return site_unview(self._counts, self.site, tensor, self.changed(h).to(tensor.dtype))
        total = self._entry.get() + self.site.scale * tensor
        wide = _wide(total)
        return (_wide(tensor) + (self.changed(wide) - wide) / self.site.scale).to(tensor.dtype)

    def changed(self, h: Tensor) -> Tensor:
        """The edited activation in the edit's own precision, float32 at least."""
        wide = _wide(h)
        with full_precision(wide):
            new = self.change(wide, self._selected.get() if self._selected is not None else {})
        # Padding and what comes later stay out of sight.
        return torch.where(wide == -torch.inf, wide, new) if self.site.port.side == "scores" else new

    def extra_repr(self) -> str:
        return self.site.address


class Here(nn.Module):
    """Everything that edits do at one module, in the order of a live edit.

    `sides` holds what is written: at the `entry`, at the `exit`, and as `sum`, after the edits of the part it is added
    to.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sides = nn.ModuleDict()
        self.roles: Roles | None = None
        self.notes: Carried[Tensor] | None = None

    def add(self, side: str, written: Written) -> None:
        if side not in self.sides:
            self.sides[side] = nn.ModuleList()
        cast(nn.ModuleList, self.sides[side]).append(written)

    def before(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        if self.roles is not None:
            self.roles.begin(args, kwargs)
        if "entry" in self.sides:
            name, tensor = input_tensor(module, args, kwargs)
            for written in self._at("entry"):
                tensor = written(tensor)
            args, kwargs = ((tensor, *args[1:]), kwargs) if name is None else (args, {**kwargs, name: tensor})
        if self.notes is not None:
            self.notes.put(input_tensor(module, args, kwargs)[1])
        return args, kwargs

    def after(self, output: Any) -> Any:
        for written in self._at("exit"):
            item = written.site.port.item
            output = put_first(output, written(first_tensor(output, "the module", item)), item)
        for written in self._at("sum"):
            output = put_first(output, written(first_tensor(output, "the module")))
        if self.notes is not None:
            self.notes.drop()
        if self.roles is not None:
            self.roles.end()
        return output

    def _at(self, side: str) -> Iterable[Written]:
        return cast(Iterable[Written], self.sides[side]) if side in self.sides else ()


def here(module: nn.Module) -> Here:
    """What is done at a module of a twin; from now on its forward asks for it."""
    if HELD not in module._modules:
        module.add_module(HELD, Here())
        # The owner's class may be anything that calls itself a module; only its forward is replaced.
        module.__class__ = asking(type(module))
    return module._modules[HELD]  # type: ignore[return-value]


_ASKING: dict[type[nn.Module], type[nn.Module]] = {}


def asking(own: type[nn.Module]) -> type[nn.Module]:
    """The class of a module with a forward around its own; it goes by the same name, which others look up."""
    if own in _ASKING:
        return _ASKING[own]

    @functools.wraps(own.forward)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        held = self._modules[HELD]
        args, kwargs = held.before(self, args, kwargs)
        return held.after(own.forward(self, *args, **kwargs))

    _ASKING[own] = renamed(own, {"forward": forward})
    return _ASKING[own]


def renamed(own: type[nn.Module], members: dict[str, Any]) -> type[nn.Module]:
    """A subclass that goes by the name of its parent."""
    names = {"__module__": own.__module__, "__qualname__": own.__qualname__, "__doc__": own.__doc__}
    return type(own.__name__, (own,), {**names, **members})


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
