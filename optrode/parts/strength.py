"""Strength in units of the stream: 1 means a change as long as the median norm of the stream at that site.

A raw vector's length differs by one to two orders of magnitude between layers and methods, so a raw multiplier means
nothing across them. Here every direction is brought to the same length first; `dose_curve` then shows the wanted
effect and the damage beside each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from ..edits.base import Edit, SiteEdit
from ..edits.operators import Add, AddByPosition
from ..errors import BadInput, NotSupported


def in_stream_units(edit: SiteEdit, norm: float) -> SiteEdit:
    """The same edit with its vector at the length `norm`, so that its strength is a share of the stream's norm.

    A vector per position is scaled by one factor, which gives its longest row that length. Raises `BadInput` for a zero
    vector, `NotSupported` for edits that add nothing.
    """
    operator = edit.operator
    if isinstance(operator, Add):
        length = float(operator.vector.norm())
    elif isinstance(operator, AddByPosition):
        length = float(operator.vectors.norm(dim=-1).max())
    else:
        raise NotSupported(f"a '{operator.name}' edit has no length: stream units are for edits that add a vector")
    if not length > 0:
        raise BadInput("the fitted vector is zero: both sides of the contrast have the same activations")
    if not norm > 0:
        raise BadInput(f"the stream's norm at {edit.site} is {norm}: it must be above 0")
    factor = norm / length
    scaled = Add(operator.vector * factor) if isinstance(operator, Add) else AddByPosition(operator.vectors * factor)
    return replace(edit, operator=scaled, unit="stream")


@dataclass(frozen=True)
class Dose:
    """One point of a dose curve: strength, wanted effect, and damage."""

    strength: float
    effect: torch.Tensor
    damage: torch.Tensor


def dose_curve(
    edit: Edit,
    strengths: Sequence[float],
    effect: Callable[[Edit | None], torch.Tensor],
    damage: Callable[[Edit | None], torch.Tensor],
) -> list[Dose]:
    """Effect and damage at each strength, item by item, both as differences from the unedited model.

    `effect(edit)` and `damage(edit)` give one number per item; None stands for the unedited model.
    """
    base_effect, base_damage = effect(None), damage(None)
    return [Dose(s, effect(edit * s) - base_effect, damage(edit * s) - base_damage) for s in strengths]
