"""How much memory a forward needs beside weights and results: an estimate from a few small measured forwards.

While a short row runs, every tensor that is made and freed is counted: the bytes alive after each operation. Three
row lengths give a curve for each operation (constant, by token, by token squared), and the largest of the curves
at the real size is the estimate. Where the operations differ between the three, as in some mixtures of experts, the
curve is that of the peaks. What an operation needs inside of itself and what the allocator holds back are not seen.
"""

from __future__ import annotations

import weakref
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from ...errors import OptrodeError
from ...host import Host
from ..editing.session import Session
from ..hooks import hooks_alone
from ..mapping.trial import in_eval_mode, one_thread
from ..reading.one_forward import taps_of
from ..reading.request import Request
from ..run import run
from ..tower_forwards import alone
from .like import Like

# Tokens of the longest of the three rows that are measured; the others have a half and a quarter of them.
LONGEST = 32


@dataclass(frozen=True)
class Footprint:
    """Bytes alive after each operation: `fixed` + rows * (`by_token` * tokens + `by_square` * tokens squared)."""

    fixed: Tensor
    by_token: Tensor
    by_square: Tensor

    def bytes(self, rows: int, tokens: int) -> int:
        """The peak of a forward of this size."""
        alive = self.fixed + rows * (self.by_token * tokens + self.by_square * tokens**2)
        return int(alive.max().clamp(min=0).item())


_KNOWN: weakref.WeakKeyDictionary[nn.Module, dict[Hashable, Footprint | None]] = weakref.WeakKeyDictionary()


def footprint(host: Host, request: Request, like: Like) -> Footprint | None:
    """The footprint of forwards for this request, measured once per process; None where made-up inputs do not run."""
    known = _KNOWN.setdefault(host.module, {})
    reduction = request.reduction.text if request.reduction else ""
    key = (frozenset(site.address for site in request.sites), reduction, host.dtype, host.device, like.key)
    if key not in known:
        known[key] = _measured(host, request, like)
    return known[key]


def _measured(host: Host, request: Request, like: Like) -> Footprint | None:
    # Positions are those of real prompts; here every token counts, and copies of it are of no interest.
    bare = replace(request, positions=None, device=None, dtype=None)
    longest = min(LONGEST, like.longest)
    lengths = [max(1, longest // 4), longest // 2, longest]
    sizes = [(1, tokens) for tokens in lengths] if like.any_tokens else [(1, 0), (2, 0)]
    try:
        traces = [_trace(host, bare, like, *size) for size in sizes]
    except OptrodeError:
        raise
    except Exception:  # whatever a network's own forward may raise on inputs that were made up
        return None
    if len({len(trace) for trace in traces}) > 1:
        traces = [trace.max()[None] for trace in traces]
    alive = torch.stack(traces)
    if not like.any_tokens:
        # Rows of one size: what two rows need more than one is one row's.
        by_row = (alive[1] - alive[0]).clamp(min=0)
        return Footprint(alive[0] - by_row, by_row / max(1, like.tokens), torch.zeros_like(by_row))
    powers = torch.tensor([[1, tokens, tokens**2] for tokens in lengths], dtype=torch.float64)
    fixed, by_token, by_square = torch.linalg.solve(powers, alive)
    return Footprint(fixed, by_token.clamp(min=0), by_square.round(decimals=3).clamp(min=0))


def _trace(host: Host, request: Request, like: Like, rows: int, tokens: int) -> Tensor:
    """Bytes alive after each operation of a forward, [operation] float64. Nothing of what is read is kept."""
    session = Session(host)
    session.stops = request.stops
    for tap in taps_of(request, sinks={site.address: _forget for site in request.sites}):
        session.add_tap(tap)
    inputs, counter = like.make(rows, tokens), LiveBytes()
    with torch.no_grad(), hooks_alone(), in_eval_mode(host.module), one_thread(), session.active(), counter:
        run(host, inputs, head=True if not host.table else request.head, tower=alone(host, request.sites, inputs))
    return torch.tensor(counter.trace, dtype=torch.float64)


def _forget(value: Tensor, shape: torch.Size) -> None:
    return None


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of tensors that are made within the block and still alive, after each operation."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = 0
        self.trace: list[int] = [0]
        self._seen = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        for tensor in _tensors((args, kwargs or {})):
            self._seen.setdefault(tensor.untyped_storage(), True)
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            storage = tensor.untyped_storage()
            if storage not in self._seen:
                self._seen[storage] = True
                self.alive += storage.nbytes()
                weakref.finalize(storage, self._freed, storage.nbytes())
        self.trace.append(self.alive)
        return result

    def _freed(self, count: int) -> None:
        self.alive -= count


def _tensors(value: Any) -> list[Tensor]:
    found = torch.utils._pytree.tree_leaves(value)
    return [leaf for leaf in found if isinstance(leaf, Tensor)]
