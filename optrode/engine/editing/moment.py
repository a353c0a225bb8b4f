"""The forward that a session is in, in one thread, and a moment of it to go on from."""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ..places import Forward

if TYPE_CHECKING:
    from .session import Session


class Running(threading.local):
    """The forward that a thread is in. A session whose context was carried into threads is in one in each of them."""

    def __init__(self) -> None:
        self.forward: Forward | None = None
        # What the last call of each tower brought, and the towers that were called in this forward.
        self.towers: dict[str, Forward] = {}
        self.begun: list[str] = []
        # The tower that was looked into last.
        self.tower = ""
        self.waiting = 0
        # Whether any of it may run again in a backward: it began with gradients on, or in a checkpointed region.
        self.graph = True
        self.counted: set[str] = set()
        # What blocks were given, for sums that begin with it.
        self.inputs: dict[nn.Module, Tensor] = {}


@dataclass(frozen=True)
class Moment:
    """A session in one forward, to go on from there when a checkpointed region runs again in the backward."""

    session: Session
    forward: Forward | None
    towers: dict[str, Forward]
    inputs: dict[nn.Module, Tensor | int | None]

    def replay(self, given: Sequence[Any]) -> Session:
        """A session with the same edits in the same forward, which looks at nothing and counts nothing.

        `given` are the arguments of the region, which `inputs` knows by their places.
        """
        again = copy.copy(self.session)
        again.counts, again.over, again.taps = False, False, {}
        again._running = Running()
        again._running.forward, again._running.towers = self.forward, dict(self.towers)
        for block, known in self.inputs.items():
            if known is not None:
                again._running.inputs[block] = given[known] if isinstance(known, int) else known
        return again
