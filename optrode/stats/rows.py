"""What every accumulator is fed with: rows of one site, masked, as float32, with where they come from.

One rule for all: a row that the mask leaves out is not there; a row that holds NaN or infinity is left out whole and
counted as `skipped`. Values are taken as float32, which bfloat16 and float16 are part of; float64 is rounded to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from math import prod

import numpy as np
import torch
from torch import Tensor

from ..errors import BadInput, NotSupported

# What is known of a row, one int64 each; -1 where it is not known. `position` counts tokens within the example.
WHERE = ("document", "example", "position", "token")
# Passes over this many values stay in a core's own cache.
_BLOCK_VALUES = 2**16
# Whole numbers of 50 bits, so many of them, have a sum of less than 63.
ROWS_AT_ONCE = 4096


def in_words(count: int, what: str) -> str:
    """A number of rows, or of other things, as a person says it.

    >>> in_words(1, "token"), in_words(1200, "patch")
    ('1 token', '1,200 patches')
    """
    return f"{count:,} {what if count == 1 else several(what)}"


def several(what: str) -> str:
    """`tokens` of `token`, `patches` of `patch`."""
    return f"{what}{'es' if what.endswith('ch') else 's'}"


class Rows:
    """Rows of one site: `values` [row, unit] float32, all of them finite; `where` [row, 4] int64, see `WHERE`.

    `skipped` counts the rows that were left out since they held NaN or infinity.
    """

    def __init__(self, values: Tensor, where: np.ndarray | None = None, skipped: int = 0):
        self.values = values
        self.skipped = skipped
        self._where = where

    @classmethod
    def of(
        cls, values: Tensor, shape: Sequence[int], mask: Tensor | None = None, where: Tensor | np.ndarray | None = None
    ) -> Rows:
        """Rows from `values` [..., *shape], `mask` bool [...] and `where` int64 [..., 4]."""
        if not values.is_floating_point():
            raise NotSupported(f"statistics need measurements, and these are {values.dtype} numbers")
        outer = values.shape[: values.dim() - len(shape)]
        if tuple(values.shape[len(outer) :]) != tuple(shape) or len(outer) + len(shape) != values.dim():
            raise BadInput(f"values of shape {list(values.shape)} do not end with the units {list(shape)}")
        flat = values.detach().reshape(prod(outer), prod(shape))
        known = None if where is None else np.asarray(where, dtype=np.int64).reshape(-1, len(WHERE))
        if known is not None and len(known) != len(flat):
            raise BadInput(f"{len(flat)} rows came with {len(known)} places in where=")
        if mask is not None:
            if tuple(mask.shape) != tuple(outer):
                raise BadInput(f"a mask of shape {list(mask.shape)} does not fit rows of shape {list(outer)}")
            keep = mask.reshape(-1).to(flat.device)
            if not bool(keep.all()):
                flat = flat[keep]
                known = None if known is None else known[keep.cpu().numpy()]
        return cls(_float32(flat), known)._finite()

    def _finite(self) -> Rows:
        # NaN and infinity both show in the largest and the smallest value of their unit.
        if not len(self) or bool((torch.isfinite(self.highest) & torch.isfinite(self.lowest)).all()):
            return self
        keep = torch.isfinite(self.values).all(1)
        where = None if self._where is None else self._where[keep.numpy()]
        return Rows(self.values[keep], where, len(self) - int(keep.sum()))

    def __len__(self) -> int:
        return self.values.shape[0]

    @property
    def units(self) -> int:
        return self.values.shape[1]

    @cached_property
    def where(self) -> np.ndarray:
        """Where each row comes from, [row, 4] int64."""
        return self._where if self._where is not None else np.full((len(self), len(WHERE)), -1, np.int64)

    @cached_property
    def highest(self) -> Tensor:
        """Largest value of each unit, [unit]; of at least one row."""
        return self.values.amax(0)

    @cached_property
    def lowest(self) -> Tensor:
        """Smallest value of each unit, [unit]; of at least one row."""
        return self.values.amin(0)

    def parts(self, rows: int = ROWS_AT_ONCE) -> Iterator[Rows]:
        """These rows in parts of at most so many; the rows as they are where that is enough."""
        if len(self) <= rows:
            yield self
            return
        for start in range(0, len(self), rows):
            where = None if self._where is None else self._where[start : start + rows]
            yield Rows(self.values[start : start + rows], where)

    def blocks(self) -> Iterator[Tensor]:
        """Values in parts that fit into a core's cache, [row, unit]."""
        yield from self.values.split(max(1, _BLOCK_VALUES // max(1, self.units)))


def _float32(values: Tensor) -> Tensor:
    values = values.cpu()
    return values.contiguous() if values.dtype == torch.float32 else values.to(torch.float32).contiguous()
