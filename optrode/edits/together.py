"""Edits of several kinds as one: entered one after the other, scaled together, and kept in one file.

>>> import torch
>>> from optrode import edits
>>> one = together(edits.prompt("Be brief."), edits.add("layers.3.out", torch.ones(8)))
>>> [part.kind for part in one.edits]
['prefix', 'site']
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from ..errors import BadInput
from .base import Edit, Provenance


@dataclass(frozen=True, eq=False)
class Together(Edit):
    """`with model.edited(one):` is `with model.edited(*one.edits):`; a strength multiplies that of every part."""

    kind: ClassVar[str] = "together"
    edits: tuple[Edit, ...]

    def __post_init__(self) -> None:
        if not self.edits or not all(isinstance(one, Edit) for one in self.edits):
            raise BadInput("edits that go together are one or more edits; take .frozen() of one that is being trained")

    @property
    def provenance(self) -> Provenance:
        """That of the first part which knows its model."""
        known = [getattr(one, "provenance", None) for one in self.edits]
        return next((one for one in known if isinstance(one, Provenance) and one.fingerprint), Provenance())

    def __mul__(self, strength: float) -> Together:
        return Together(tuple(one * strength for one in self.edits))

    def tensors(self) -> dict[str, Tensor]:
        return {f"{n}.{name}": value for n, one in enumerate(self.edits) for name, value in one.tensors().items()}

    def with_tensors(self, tensors: dict[str, Tensor]) -> Together:
        own: list[dict[str, Any]] = [{} for _ in self.edits]
        for name, value in tensors.items():
            number, _, rest = name.partition(".")
            own[int(number)][rest] = value
        return Together(tuple(one.with_tensors(values) for one, values in zip(self.edits, own, strict=True)))

    def constrained(self) -> Together:
        return Together(tuple(one.constrained() for one in self.edits))


def together(*edits: Edit) -> Together:
    """Edits of any kinds as one, in the order in which they are to act; what is together already is put in line.

    Raises `BadInput` for none, and for what is no edit.
    """
    return Together(tuple(flat(edits)))


def flat(edits: Iterable[Any]) -> Iterator[Any]:
    """Edits with those that are together one by one."""
    for one in edits:
        if isinstance(one, Together):
            yield from flat(one.edits)
        else:
            yield one
