"""Reductions on the fly: each site shrinks the moment it is seen, so that whole activations are never kept.

| text | over the tokens of each example, so that an example keeps one vector |
|---|---|
| `mean`, `max`, `min` | of each feature |
| `norm` | the Euclidean norm of each feature |
| `last` | the last token |

Only the selected tokens count (`positions`; without, every token but padding), and the patches or pixels of a picture
are its tokens. With `@feature` (`norm@feature`, `mean@feature`, `max@feature`, `min@feature`) the last axis goes
instead and every token keeps one number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import BadInput, NotSupported, WrongShape, did_you_mean
from ...host import SiteInfo

# What a caller may give: the value [example, token, ...] and the tokens that count, bool [example, token]
# (None at sites without tokens), to one tensor [example, ...].
OwnReduction = Callable[[Tensor, "Tensor | None"], Tensor]

_OVER_TOKENS = ("mean", "max", "min", "norm", "last")
_OVER_FEATURES = ("mean@feature", "max@feature", "min@feature", "norm@feature")
_PLACES = ("token", "written", "patch", "row", "column")


@dataclass(frozen=True)
class Reduction:
    """A parsed reduction; `own` is the caller's function, if it is one."""

    text: str
    own: OwnReduction | None = None

    @property
    def over_tokens(self) -> bool:
        return not self.text.endswith("@feature")

    @property
    def says(self) -> str:
        """What is kept, in words."""
        if self.own is not None:
            return f"{self.text} of the selected tokens, one value for each example"
        name, _, axis = self.text.partition("@")
        return f"{name} over the {'last axis, for each token' if axis else 'selected tokens, for each example'}"

    def applies(self, site: SiteInfo, axes: tuple[str, ...]) -> bool:
        """Whether a site with these axes has what is reduced; a pooled vector has no tokens and stays as it is.

        Raises `NotSupported` for a raw module whose axes nobody knows.
        """
        if self.own is not None or not self.over_tokens or any(name in _PLACES for name in axes):
            return True
        if not site.port.axes and len(axes) > 2:
            raise NotSupported(
                f"{site.address} has axes without names, so '{self.text}' is not known to be over tokens: "
                "choose a named site, or give a function as reduce="
            )
        return False

    def axes(self, axes: tuple[str, ...], dims: int) -> tuple[str, ...]:
        """The axes that are left of `axes`, in a value of `dims` axes."""
        if self.own is not None:
            return ("example", *(f"axis{index}" for index in range(1, dims)))
        return tuple(name for name in axes if name not in _PLACES) if self.over_tokens else axes[:-1]

    def __call__(self, value: Tensor, mask: Tensor | None, axes: tuple[str, ...]) -> Tensor:
        """The reduced value, in the dtype of `value`; computed in float32 at least.

        `value` has the axes `axes`, which begin with the example where tokens are reduced; `mask` says which of the
        tokens count, bool [example, token] (None for all).
        """
        if self.own is not None:
            return self._own(value, mask, axes)
        if not value.is_floating_point():
            raise NotSupported(f"reduce='{self.text}' needs measurements, and this site holds {_kind(value)} numbers")
        wide = torch.promote_types(value.dtype, torch.float32)
        if not self.over_tokens:
            return _over(self.text.partition("@")[0], value, -1, wide).to(value.dtype)
        places = sum(name in _PLACES for name in axes)
        value = value.flatten(1, places)
        if self.text == "last":
            return _last(value, mask)
        if mask is None:
            return _over(self.text, value, 1, wide).to(value.dtype)
        nothing = {"max": -torch.inf, "min": torch.inf}.get(self.text, 0.0)
        kept = value.masked_fill(~_beside(mask, value), nothing)
        if self.text == "mean":
            total = kept.sum(1, dtype=wide)
            return (total / _beside(mask.sum(1), total)).to(value.dtype)
        return _over(self.text, kept, 1, wide).to(value.dtype)

    def _own(self, value: Tensor, mask: Tensor | None, axes: tuple[str, ...]) -> Tensor:
        assert self.own is not None
        if mask is None and "token" in axes:
            mask = torch.ones(value.shape[:2], dtype=torch.bool, device=value.device)
        made = self.own(value, mask)
        if not isinstance(made, Tensor) or not made.dim() or made.shape[0] != value.shape[0]:
            shape = list(made.shape) if isinstance(made, Tensor) else type(made).__name__
            raise WrongShape(
                f"reduce={self.text} gave {shape} for a value of {list(value.shape)}: "
                f"it must give one tensor whose first axis is the {value.shape[0]} examples"
            )
        return made


def reduction(reduce: str | OwnReduction | None) -> Reduction | None:
    """The reduction that a text names or a function is. Raises `BadInput` for a text that names none.

    >>> reduction("norm@feature").over_tokens
    False
    """
    if reduce is None:
        return None
    if callable(reduce):
        return Reduction(getattr(reduce, "__name__", type(reduce).__name__), reduce)
    if reduce not in (*_OVER_TOKENS, *_OVER_FEATURES):
        raise BadInput(f"reduce={reduce!r} is not known: {did_you_mean(str(reduce), (*_OVER_TOKENS, *_OVER_FEATURES))}")
    return Reduction(reduce)


def _over(name: str, value: Tensor, axis: int, wide: torch.dtype) -> Tensor:
    if name == "mean":
        return value.mean(axis, dtype=wide)
    if name == "norm":
        return torch.linalg.vector_norm(value, dim=axis, dtype=wide)
    return value.amax(axis) if name == "max" else value.amin(axis)


def _last(value: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return value[:, -1]
    columns = torch.arange(mask.shape[1], device=mask.device)
    last = (columns * mask).amax(1)
    return value[torch.arange(len(value), device=value.device), last]


def _beside(narrow: Tensor, value: Tensor) -> Tensor:
    """With axes of size 1 at the end, so that it stands beside `value`."""
    return narrow.reshape(*narrow.shape, *(1,) * (value.dim() - narrow.dim()))


def _kind(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")
