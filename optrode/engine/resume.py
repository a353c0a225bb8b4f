"""Starting a forward in the middle: blocks below k answer with the residual that an earlier forward left.

A search over strengths at layer k changes nothing below k. `Residuals` keeps the stream at some block inputs; a
read that is given them runs only the blocks from the first edited one on. Whether an architecture allows this is
measured once per network, on the first use: where a resumed and a full forward differ, nothing is resumed.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..batches import Batch
from ..host import Host
from .hooks import hooks_alone

_FROM: ContextVar[tuple[nn.Module, int, Tensor] | None] = ContextVar("optrode_resume_from", default=None)
_LOCK = threading.Lock()


@dataclass(frozen=True)
class Residuals:
    """The stream of one batch at some block inputs: `at[k]` is [example, token, feature], what block k reads."""

    batch: Batch
    at: dict[int, Tensor]

    def start(self, first_edited: int) -> int:
        """The last cached block at or before `first_edited`; 0 where nothing is cached (a full forward)."""
        return max((layer for layer in self.at if layer <= first_edited), default=0)


@contextmanager
def resumed(host: Host, layer: int, residual: Tensor | None) -> Iterator[None]:
    """Within the block, blocks before `layer` return at once; the last of them returns `residual`."""
    if layer <= 0 or residual is None:
        yield
        return
    blocks = list(host.blocks)[:layer]
    _bypass(host.module, blocks)
    token = _FROM.set((host.module, layer, residual.to(host.device)))
    try:
        yield
    finally:
        _FROM.reset(token)
        _restore(blocks)


class _Bypass:
    """Stands in for a block's forward; threads that did not ask for a resume get the block's own."""

    def __init__(self, network: nn.Module, block: nn.Module, index: int):
        self.network = network
        self.own = block.forward
        self.had = "forward" in block.__dict__
        self.index = index
        self.users = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        resume = _FROM.get()
        if resume is None or resume[0] is not self.network:
            return self.own(*args, **kwargs)
        _, layer, residual = resume
        if self.index == layer - 1:
            return residual
        return args[0] if args else kwargs["hidden_states"]


def _bypass(network: nn.Module, blocks: list[nn.Module]) -> None:
    with _LOCK:
        for index, block in enumerate(blocks):
            bypass: Any = block.forward
            if not isinstance(bypass, _Bypass):
                bypass = block.forward = _Bypass(network, block, index)
            bypass.users += 1


def _restore(blocks: list[nn.Module]) -> None:
    with _LOCK:
        for block in blocks:
            bypass: Any = block.forward
            bypass.users -= 1
            if not bypass.users:
                if bypass.had:
                    block.forward = bypass.own
                else:
                    del block.__dict__["forward"]


_CAN_RESUME: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()


def can_resume(host: Host, batch: Batch, at: dict[int, Tensor]) -> bool:
    """Whether a resumed forward equals a full one on this network, measured once with the rows at hand.

    Compares the last block's output, resumed at every cached block of one row, with float tolerance.
    """
    if host.module not in _CAN_RESUME:
        one = batch.pick([0])
        _CAN_RESUME[host.module] = _probe(host, one, {layer: value[:1, -one.width :] for layer, value in at.items()})
    return _CAN_RESUME[host.module]


def _probe(host: Host, batch: Batch, at: dict[int, Tensor]) -> bool:
    last = f"layers.{host.layers - 1}.out"
    full = _last_out(host, batch, last)
    for layer, residual in at.items():
        with resumed(host, layer, residual):
            try:
                got = _last_out(host, batch, last)
            except (TypeError, AttributeError, RuntimeError):
                return False
        scale = full.abs().max().clamp(min=1e-12)
        if got.shape != full.shape or not bool((got - full).abs().max() <= 1e-4 * scale):
            return False
    return True


def _last_out(host: Host, batch: Batch, site: str) -> Tensor:
    from .run import run
    from .session import Session, Tap

    session = Session(host)
    tap = Tap(host.table[site], None, keep_graph=False)
    session.add_tap(tap)
    session.stops = True
    with torch.no_grad(), hooks_alone(), session.active():
        run(host, batch, head=False)
    assert tap.value is not None
    return tap.value.float()
