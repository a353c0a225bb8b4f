"""Edits that are trained: their tensors as parameters of a module, for an ordinary optimiser and an ordinary loop.

>>> import torch
>>> from optrode import edits
>>> trainable = edits.add("layers.3.out", torch.zeros(8)).trainable()
>>> [name for name, _ in trainable.named_parameters()]
['vector']
>>> trainable.frozen().site
'layers.3.out'
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import BadInput, NotSupported, UnknownName, did_you_mean
from .base import Edit, Provenance


class Trainable(nn.Module):
    """The tensors of an edit as parameters; `model.edited(trainable)` is like any edit and lets gradients through.

    Parameters are named as `edit.tensors()` names the tensors, so that a `state_dict` reads well; tensors of an edit
    that are not trained are buffers. Half precision becomes float32, in which edits compute; other dtypes stay. The
    edit that was given is not touched.

    Tensors that must stay where they are, such as orthonormal rows, are put back there in every forward, through
    which the gradient goes, and in `frozen`; the optimiser's own steps may leave that set.

    Raises `BadInput` for an edit without tensors, `UnknownName` for a field that it does not have.
    """

    def __init__(self, edit: Edit, *fields: str):
        super().__init__()
        self._edit = edit
        self._met: Callable[[], Provenance] | None = None
        tensors = edit.tensors()
        floating = {name for name, value in tensors.items() if value.is_floating_point()}
        if not floating:
            raise BadInput(
                f"the {edit.kind} edit holds no tensors to train: the parameters of a function can go to the optimiser "
                "as they are"
            )
        known = {_field(name) for name in floating}
        for name in fields:
            if name not in known:
                raise UnknownName(f"the edit has no field '{name}' to train: {did_you_mean(name, sorted(known))}")
        self._names = list(tensors)
        for name, value in tensors.items():
            trained = name in floating and (not fields or _field(name) in fields)
            self._put(name, _own(value), trained)

    def _put(self, name: str, value: Tensor, trained: bool) -> None:
        """Register under a dotted name, through modules of the names before the last dot."""
        *path, last = name.split(".")
        holder: nn.Module = self
        for step in path:
            if step not in holder._modules:
                holder.add_module(step, nn.Module())
            holder = holder._modules[step]  # type: ignore[assignment]
        if trained:
            holder.register_parameter(last, nn.Parameter(value))
        else:
            holder.register_buffer(last, value)

    def _get(self, name: str) -> Tensor:
        path, _, last = name.rpartition(".")
        return getattr(self.get_submodule(path), last)

    @property
    def edit(self) -> Edit:
        """The edit as it is now, its tensors the parameters themselves: for sums with other edits and strengths."""
        return self._edit.with_tensors({name: self._get(name) for name in self._names})

    def frozen(self, **recipe: Any) -> Edit:
        """A plain edit with a copy of the tensors as they are now: it can be saved, and training goes on without it.

        `recipe` is what should be known of the training, such as `steps=200`; it travels in the file with the
        fingerprint of the model that the edit was last entered on.
        """
        tensors = {name: self._get(name).detach().clone() for name in self._names}
        plain = self._edit.with_tensors(tensors).constrained()
        if not hasattr(plain, "with_provenance"):
            return plain
        found = self._met() if self._met is not None else Provenance()
        return plain.with_provenance(replace(found, recipe={"method": "trained", **recipe}))

    def meet(self, provenance: Callable[[], Provenance]) -> None:
        """What the engine calls when the edit is entered: where to learn of the model, should anybody ask."""
        self._met = provenance

    def forward(self, *_: Any) -> Any:
        raise NotSupported("a trainable edit is no layer: enter it with model.edited(trainable) and run the model")

    def extra_repr(self) -> str:
        return f"{self._edit.kind} edit"


def _field(name: str) -> str:
    return name.rpartition(".")[2]


def _own(value: Tensor) -> Tensor:
    """A copy that nobody else changes, in float32 or wider where it holds fractions."""
    copy = value.detach().clone()
    return copy.to(torch.promote_types(copy.dtype, torch.float32)) if copy.is_floating_point() else copy
