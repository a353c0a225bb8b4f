"""Random draws of one generation alone: sampling that threads do not disturb and that leaves no trace.

`generate` of transformers draws from the one generator of the process, which all threads share. Here each draw is given
a generator of its own, for as long as the draw takes: between the scores and the stopping criteria of a step.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..editing.undo import sure
from ..torch_names import function_modes


class _FromGenerator(TorchFunctionMode):
    """Draws in this thread come from `generator`."""

    def __init__(self, generator: torch.Generator):
        super().__init__()
        self._generator = generator

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.multinomial:
            kwargs = {"generator": self._generator, **(kwargs or {})}
        return func(*args, **(kwargs or {}))


class _Draws:
    """A step's draw, from the scores (called as a logits processor) to the token (called as a stopping criterion)."""

    def __init__(self, seed: int, device: torch.device):
        self._mode = _FromGenerator(torch.Generator(device).manual_seed(seed))

    def begin(self, ids: Tensor, scores: Tensor) -> Tensor:
        if self._mode not in function_modes():
            self._mode.__enter__()
        return scores

    def end(self, ids: Tensor, scores: Any, **_: Any) -> Tensor:
        self.close()
        return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)

    def close(self) -> None:
        # Asked of torch, since an interrupt may fall between entering and noting that.
        if self._mode in function_modes():
            self._mode.__exit__(None, None, None)


@contextmanager
def drawing(seed: int, device: torch.device, arguments: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The arguments of `generate` with which it draws as after `torch.manual_seed(seed)`, but for itself alone."""
    draws = _Draws(seed, device)
    with sure(draws.close):
        yield {
            **arguments,
            "logits_processor": [*(arguments.get("logits_processor") or ()), draws.begin],
            "stopping_criteria": [*(arguments.get("stopping_criteria") or ()), draws.end],
        }


@contextmanager
def seeded(seed: int, devices: list[torch.device]) -> Iterator[None]:
    """The process's own generator with a seed, put back afterwards: for decoding that draws in other ways too."""
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
