"""The contract of all accumulators: fed with rows in any portions, merged in any order, asked at any time."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..errors import BadFile, BadInput
from ..messages import shown
from .rows import Rows

Own = TypeVar("Own", bound="Accumulator")
KINDS: dict[str, type[Accumulator]] = {}


class Accumulator:
    """Base of accumulators over rows of `shape`, which is what a row of the site has: `(576,)`, or `(9, 64)` by head.

    Settings are fixed when it is made; `update` adds rows, `merge` gives the accumulator of both amounts of data.
    `count` is the number of rows, `skipped` that of rows left out since they held NaN or infinity.
    """

    kind: ClassVar[str]
    settings: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "kind" in cls.__dict__:
            KINDS[cls.kind] = cls

    def __init__(self, shape: int | Sequence[int] = ()):
        self.shape = (shape,) if isinstance(shape, int) else tuple(int(size) for size in shape)
        self.count = self.skipped = 0

    @property
    def units(self) -> int:
        return prod(self.shape)

    def update(self, values: Tensor, mask: Tensor | None = None, where: Tensor | np.ndarray | None = None) -> None:
        """Add rows: `values` [..., *shape], of which `mask` (bool [...]) says which count.

        `where`: int64 [..., 4], the document, example, position and token of each row (`optrode.stats.rows.WHERE`).
        Raises `BadInput` for shapes that do not fit, `NotSupported` for whole numbers.
        """
        self.add(Rows.of(values, self.shape, mask, where))

    def add(self, rows: Rows) -> None:
        """Add rows that are prepared already."""
        self.count += len(rows)
        self.skipped += rows.skipped
        if len(rows):
            self._add(rows)

    def merge(self: Own, other: Own) -> Own:
        """What one accumulator of all the data would be; both stay as they are.

        Raises `BadInput` where kinds, shapes or settings differ.
        """
        if type(self) is not type(other) or self.described() != other.described():
            raise BadInput(f"{self!r} and {other!r} count different things, so they cannot be merged")
        merged = copy.deepcopy(self)
        merged.count, merged.skipped = self.count + other.count, self.skipped + other.skipped
        if other.count:
            merged._merge(copy.deepcopy(other))
        return merged

    def result(self) -> dict[str, Tensor]:
        """The statistics by name, each [*shape] or with axes of its own in front. NaN where no row was counted."""
        raise NotImplementedError

    def _add(self, rows: Rows) -> None:
        raise NotImplementedError

    def _merge(self, other: Any) -> None:
        raise NotImplementedError

    def _tensors(self) -> dict[str, Tensor]:
        """The state, to be given back to `_restore`."""
        raise NotImplementedError

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        raise NotImplementedError

    @classmethod
    def least(cls, shape: Sequence[int], **settings: Any) -> int:
        """How many numbers the state of one has at least. A file that holds fewer is refused before memory is taken."""
        return prod(shape)

    # Files ------------------------------------------------------------------------------------------------------------

    def described(self) -> dict[str, Any]:
        """Kind and settings, plain values."""
        settings = {name: getattr(self, name) for name in self.settings}
        return {"kind": self.kind, "shape": list(self.shape), "settings": _plain(settings)}

    def state_dict(self) -> dict[str, Tensor]:
        """All that `load_state_dict` of one with the same settings needs. Equal states are equal tensors."""
        return {"rows": torch.tensor([self.count, self.skipped]), **self._tensors()}

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Take over a state. Raises `BadFile` where it is not one of this accumulator."""
        try:
            self.count, self.skipped = (int(number) for number in tensors["rows"])
            if self.count < 0 or self.skipped < 0:
                raise ValueError("fewer rows than none")
            self._restore({name: tensor for name, tensor in tensors.items() if name != "rows"})
        except (LookupError, ArithmeticError, ValueError, RuntimeError, TypeError) as problem:
            raise BadFile(f"this is no state of {type(self).__name__} ({type(problem).__name__})") from problem

    def save(self, path: str | Path) -> Path:
        """Write a safetensors file; it is whole or absent."""
        from .file import write_file

        return write_file(path, self.described(), self.state_dict())

    @classmethod
    def load(cls, path: str | Path) -> Accumulator:
        """Read what `save` wrote. Raises `MissingFile`, and `BadFile` for another or a damaged file."""
        from .file import read_file

        described, tensors = read_file(Path(path))
        return made(described, tensors)

    def _where(self, where: np.ndarray, leading: Sequence[int] = ()) -> Tensor:
        return torch.from_numpy(where.copy()).view(*leading, *self.shape, -1)

    def _shaped(self, values: np.ndarray | Tensor, *leading: int) -> Tensor:
        tensor = values if isinstance(values, Tensor) else torch.from_numpy(np.ascontiguousarray(values))
        return tensor.reshape(*leading, *self.shape).clone()

    def __repr__(self) -> str:
        settings = "".join(f", {name}={getattr(self, name)!r}" for name in self.settings if name != "edges")
        return f"{type(self).__name__}({list(self.shape)}{settings}; {self.count:,} rows)"


def made(described: dict[str, Any], tensors: dict[str, Tensor]) -> Accumulator:
    """The accumulator of a description and a state. Raises `BadFile`."""
    name = described.get("kind")
    kind = KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise BadFile(f"this version knows no accumulator {shown(described.get('kind'))}: update optrode")
    try:
        check_size(kind.least(sizes(described["shape"]), **described["settings"]), tensors)
        accumulator = kind(described["shape"], **described["settings"])
    except (LookupError, ArithmeticError, TypeError, ValueError, AttributeError, RuntimeError, BadInput) as problem:
        raise BadFile(f"the settings of the accumulator '{kind.kind}' are damaged") from problem
    accumulator.load_state_dict(tensors)
    return accumulator


def sizes(shape: Any) -> tuple[int, ...]:
    """The shape of a row as a file says it. Raises `ValueError`."""
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError("a shape that is none")
    return tuple(shape)


def check_size(least: int, tensors: dict[str, Tensor]) -> None:
    """Raises `ValueError` where tensors hold fewer numbers than a state has."""
    if not least <= sum(tensor.numel() for tensor in tensors.values()):
        raise ValueError("a state that is larger than its tensors")


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}
