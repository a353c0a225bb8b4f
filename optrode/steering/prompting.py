"""Prompting: ask for the behaviour in the system prompt. Costs nothing to fit, and often wins."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from ..data import Behaviour
from ..edits.base import Edit
from ..edits.prefix import PrefixEdit
from ..errors import BadInput
from ..model import Model
from .protocol import SteeringMethod


@dataclass(frozen=True)
class Prompting(SteeringMethod):
    """The behaviour's instruction as a system prompt; `against` asks for the opposite."""

    id: ClassVar[str] = "prompting"
    title: ClassVar[str] = "prompting"
    role: ClassVar[str] = "baseline"

    against: bool = False

    def facing(self, sign: int) -> Prompting:
        return replace(self, against=sign < 0)

    def fit(self, model: Model, data: Any) -> Edit:
        """Raises `BadInput` when the behaviour comes without instructions."""
        if not isinstance(data, Behaviour) or not data.instructions[int(self.against)]:
            raise BadInput(
                "prompting needs a behaviour with instructions: name a built-in one, or give the system prompt"
            )
        return PrefixEdit(system=data.instructions[int(self.against)])
