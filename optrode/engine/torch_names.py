"""Every name of torch that is private, in one place; `tests/engine/test_torch_names.py` is the canary.

A region under `torch.utils.checkpoint` runs its function once in the forward, and once more in the backward to have
back what it did not keep. Each region is an object that holds the function which will be called then.
"""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils import checkpoint as _module


def _functions_in(function: Any, name: str) -> list[types.CodeType]:
    """The code of the functions of that name that a function defines."""
    return [part for part in function.__code__.co_consts if isinstance(part, types.CodeType) and part.co_name == name]


# The modes that are active in this thread, innermost last.
function_modes: Callable[[], list[Any]] = torch.overrides._get_current_function_mode_stack

_REENTRANT = _module.CheckpointFunction.forward.__code__
_OTHER = inspect.unwrap(_module.checkpoint).__code__
_SECOND = {
    _module.CheckpointFunction.backward.__code__,
    *_functions_in(_module._checkpoint_hook.__init__, "unpack_hook"),
}


def backward_number() -> int:
    """Which backward this thread is in; -1 where it is in none."""
    return torch._C._current_graph_task_id()


def runs_again() -> bool:
    """Whether this thread is in the second pass of a checkpointed region, which is somewhere in a backward."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code in _SECOND:
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


class Region:
    """One checkpointed region whose first pass is running: what it will call to run again."""

    def __init__(self, holder: Any, name: str, arguments: tuple, needs_grad: bool):
        self._holder = holder
        self._name = name
        # Of the function, in the order in which it will be given them again.
        self.arguments = arguments
        # Whether gradients will come back from it: a reentrant region whose inputs need none drops them all.
        self.needs_grad = needs_grad

    @property
    def key(self) -> int:
        return id(self._holder)

    @property
    def reentrant(self) -> bool:
        return self._name == "run_function"

    @property
    def marked(self) -> bool:
        return hasattr(self._holder, "optrode")

    def wrap(self, wrapper: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        """Let `wrapper(function)` be called in place of the function, and mark the region as wrapped."""
        setattr(self._holder, self._name, wrapper(getattr(self._holder, self._name)))
        self._holder.optrode = True


def regions() -> Iterator[Region]:
    """The checkpointed regions whose first pass this thread is in, innermost first. A few microseconds."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code is _REENTRANT:
            context = frame.f_locals["ctx"]
            if hasattr(context, "run_function"):
                yield Region(context, "run_function", frame.f_locals["args"], any(context.needs_input_grad))
        elif frame.f_code is _OTHER and "gen" in frame.f_locals:
            generator = frame.f_locals["gen"].gi_frame
            known = {} if generator is None else generator.f_locals
            if "new_frame" in known:
                yield Region(known["new_frame"], "recompute_fn", known["args"], True)
        frame = frame.f_back  # type: ignore[assignment]
