"""Which edits act where this is asked: in this thread or task, outermost first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from ...edits.anatomy import brief
from ...edits.base import Edit
from ...edits.trainable import Trainable
from ...host import Host
from .receipt import Receipt
from .undo import sure


@dataclass(eq=False, repr=False)
class ActiveEdit:
    """An edit whose block has not ended. `receipt` counts what it does while that goes on.

    `over` outlives the block in contexts that were copied inside it.
    """

    host: Host
    edit: Edit | Trainable
    receipt: Receipt
    over: bool = False

    def __repr__(self) -> str:
        return f"{brief(self.edit)} (on {self.host.name}, {self._ran()} so far)"

    def _ran(self) -> str:
        """How often it was met; prompts are put in front without any forward."""
        receipt = self.receipt
        count, what = (receipt.forwards, "forward") if receipt.forwards else (receipt.calls, "call")
        return f"{count} {what}{'s' if count != 1 else ''}" if count else "not used"


class ActiveEdits(tuple[ActiveEdit, ...]):
    """The active edits, outermost first, which is the order in which they act. Prints as a numbered list."""

    __slots__ = ()

    def __repr__(self) -> str:
        if not self:
            return "no edit is active in this thread or task"
        return "\n".join(f"{number}. {one!r}" for number, one in enumerate(self, 1))

    __str__ = __repr__


_ENTERED: ContextVar[tuple[ActiveEdit, ...]] = ContextVar("optrode_entered_edits", default=())


def active(host: Host | None = None) -> ActiveEdits:
    """The edits that act here, of all models or of one.

    They belong to the context: a thread that was started plainly has none, one that runs a function of `receipt.bind`
    has those of its block. What a method enters while it fits or measures counts too.

    >>> active()
    no edit is active in this thread or task
    """
    module = host.module if host is not None else None
    return ActiveEdits(one for one in _ENTERED.get() if not one.over and (module is None or one.host.module is module))


@contextmanager
def listed(host: Host, edit: Edit | Trainable, receipt: Receipt) -> Iterator[None]:
    """Within the block the edit is among the active ones."""
    own = ActiveEdit(host, edit, receipt)

    def leave() -> None:
        own.over = True
        _ENTERED.set(tuple(one for one in _ENTERED.get() if one is not own))

    with sure(leave):
        _ENTERED.set((*_ENTERED.get(), own))
        yield
