"""Blocks that are answered for: within a block of code, a network's own blocks do not run, and a function answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import nn

from ..host import Host
from .editing.undo import having, sure
from .hooks import HOOKS, INSTALL, Side

# answer(index, own forward, arguments, named arguments) -> what the block returns.
Answer = Callable[[int, Callable[..., Any], tuple, dict[str, Any]], Any]

_ANSWER: ContextVar[tuple[dict[nn.Module, int], Answer] | None] = ContextVar("optrode_answer_for_blocks", default=None)


@contextmanager
def answered(host: Host, answer: Answer, layers: int | None = None) -> Iterator[None]:
    """Within the block, `answer` stands in for the forwards of the first `layers` blocks (None: of all).

    Hooks of the blocks fire as ever. Contexts and threads that did not ask for this get the blocks' own forwards.
    """
    count = host.layers if layers is None else layers
    blocks = {block: index for index, block in enumerate(host.blocks) if index < count}
    points, user = [(block, "forward") for block in blocks], object()
    with sure(lambda: HOOKS.drop(points, user)):
        HOOKS.take(points, user)
        with having(_ANSWER, (blocks, answer)):
            yield


class _StandIn:
    """Stands in for a block's forward, by the context it is called in."""

    def __init__(self, block: nn.Module):
        self.block = block
        self.own = block.forward
        self.had = "forward" in block.__dict__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        found = _ANSWER.get()
        if found is None or self.block not in found[0]:
            return self.own(*args, **kwargs)
        blocks, answer = found
        return answer(blocks[self.block], self.own, args, kwargs)


def _put_on(block: nn.Module) -> None:
    block.forward = _StandIn(block)  # type: ignore[method-assign, assignment]


def _take_off(block: nn.Module) -> None:
    stand_in = block.__dict__.get("forward")
    if not isinstance(stand_in, _StandIn):
        return
    if stand_in.had:
        block.forward = stand_in.own  # type: ignore[method-assign]
    else:
        del block.__dict__["forward"]


INSTALL["forward"] = Side(_put_on, _take_off)
