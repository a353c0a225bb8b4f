"""Recompute passes: a checkpointed region runs again in the backward, and must meet there the edits it met before.

The backward may run in another thread, after the block that held the edit, or after other forwards. So every region
takes along, from its first pass, the sessions that were active and the forward they were in, and is given them back
for as long as it runs again: hooks too, which are gone when it ends. Such a pass applies edits and counts nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import NotSupported
from .torch_names import Region, regions, runs_again

if TYPE_CHECKING:
    from .editing.moment import Moment
    from .editing.session import Session


def carry(sessions: Sequence[Session]) -> None:
    """Give the checkpointed regions that are running what they will need to run again. Called at every hook."""
    sessions = [session for session in sessions if session.may_run_again]
    if not sessions:
        return
    for region in regions():
        if not region.marked:
            # A session that began inside the region begins again when the region runs again.
            _carry(region, [session.moment(region) for session in sessions if region.key not in session.begun_in])


def _carry(region: Region, moments: list[Moment]) -> None:
    context = copy_context()

    def wrapper(function: Callable[..., Any]) -> Callable[..., Any]:
        def again(*args: Any, **kwargs: Any) -> Any:
            # A copy, since a context cannot be entered twice, as it would be by regions in regions.
            return context.copy().run(_replay, moments, function, args, kwargs)

        return again

    region.wrap(wrapper)


def _replay(moments: list[Moment], function: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> Any:
    from .hooks import ACTIVE

    ACTIVE.set(())
    with ExitStack() as stack:
        for moment in moments:
            stack.enter_context(moment.replay(args).active())
        return function(*args, **kwargs)


def meant(session: Session) -> bool:
    """Whether a session of the context is meant in the pass at hand.

    Not in the second pass of a checkpointed region whose first pass it had no part in. Those that had are met there as
    replays; other ways to run again cannot be told from the first pass, so that the sessions of now are taken.
    """
    return not session.counts or session.counting or not runs_again()


def known_again(tensor: Tensor, region: Region) -> Tensor | int | None:
    """How a tensor from outside is known when the region runs again: its place among the arguments, or itself.

    None where it can't be: gradients of a reentrant region go through its arguments alone.
    """
    place = next((place for place, value in enumerate(region.arguments) if value is tensor), None)
    if place is None and not (region.reentrant and tensor.requires_grad):
        return tensor
    return place


def begun_in() -> frozenset[int]:
    """Keys of the regions that a session begins in."""
    return frozenset(region.key for region in regions())


def in_region() -> bool:
    """Whether this thread is in a checkpointed region, in its first pass."""
    return any(True for _ in regions())


def outside_graph() -> bool:
    """Whether a reentrant region around us leaves no graph of what runs in it."""
    return not torch.is_grad_enabled() and any(region.reentrant for region in regions())


def refuse_lost_gradients(where: str) -> None:
    """Raise where an edit is trained in a region that will never hand its gradients on."""
    if not torch.is_grad_enabled() and any(region.reentrant and not region.needs_grad for region in regions()):
        raise NotSupported(
            f"the edit at {where} lies in a reentrant checkpoint whose inputs need no gradients, which drops those of "
            "the edit: checkpoint with use_reentrant=False, or call enable_input_require_grads() on the network"
        )


@contextmanager
def full_precision(tensor: Tensor) -> Iterator[None]:
    """Autocast off for the arithmetic of edits, which has a precision of its own."""
    if not torch.is_autocast_enabled(tensor.device.type):
        yield
        return
    with torch.autocast(tensor.device.type, enabled=False):
        yield
