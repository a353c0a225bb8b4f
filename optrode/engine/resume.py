"""Starting a forward in the middle: blocks below k and columns before c answer with what an earlier forward left.

A search over strengths at layer k changes nothing below block k, and nothing before the first position that the edit
touches. `Residuals` keeps the stream at some block inputs and the keys and values of all blocks; a read that is given
them runs only the blocks from the first edited one on, and only the columns from the first edited one on. Whether an
architecture allows this is measured once per network, on the first use: where a resumed and a full forward differ,
nothing is resumed.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..batches import Batch
from ..host import Host
from .bypass import answered
from .hooks import hooks_alone
from .transformers_names import cache_with


@dataclass(frozen=True)
class Residuals:
    """What one batch left behind in the unedited network.

    `at[k]` is [example, token, feature], what block k reads; `keys_values` holds the keys and values of each block,
    [example, head, token, feature], or nothing where columns cannot be skipped.
    """

    batch: Batch
    at: dict[int, Tensor]
    keys_values: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def start(self, first_edited: int) -> int:
        """The last cached block at or before `first_edited`; 0 where nothing is cached (a full forward)."""
        return max((layer for layer in self.at if layer <= first_edited), default=0)


@contextmanager
def resumed(host: Host, layer: int, residual: Tensor | None) -> Iterator[None]:
    """Within the block, blocks before `layer` return at once; the last of them returns `residual`."""
    if layer <= 0 or residual is None:
        yield
        return
    kept = residual.to(host.device)

    def answer(index: int, own: Any, args: tuple, kwargs: dict[str, Any]) -> Tensor:
        if index == layer - 1:
            return kept
        return args[0] if args else kwargs["hidden_states"]

    with answered(host, answer, layer):
        yield


# Network -> whether blocks, and whether columns, can be resumed from; an entry is there once it was measured.
_CAN_RESUME: weakref.WeakKeyDictionary[nn.Module, dict[str, bool]] = weakref.WeakKeyDictionary()


def checked(host: Host, found: Residuals) -> Residuals:
    """`found` without what this network cannot resume from, measured once per network on one row.

    Compares the last token of the last block's output with that of a full forward, with float tolerance: resumed at
    every cached block, and with half of the columns taken from the keys and values.
    """
    known = _CAN_RESUME.setdefault(host.module, {})
    can_measure = {"layers": bool(found.at), "columns": bool(found.keys_values) and int(found.batch.mask[0].sum()) > 1}
    if any(can_measure[kind] and kind not in known for kind in can_measure):
        known |= _probe(host, found)
    at = found.at if known.get("layers") else {}
    return Residuals(found.batch, at, found.keys_values if known.get("columns") else [])


def _probe(host: Host, found: Residuals) -> dict[str, bool]:
    one = found.batch.pick([0])
    used = found.batch.mask[0].nonzero().flatten()
    part = slice(int(used[0]), int(used[-1]) + 1)
    full = _last_out(host, one)
    measured = {}
    if found.at:
        at = {layer: value[:1, part] for layer, value in found.at.items()}
        measured["layers"] = all(
            _same(host, full, _tried(host, one, layer, residual)) for layer, residual in at.items()
        )
    half = one.width // 2
    if found.keys_values and half:
        kept = [(keys[:1, :, part], values[:1, :, part]) for keys, values in found.keys_values]
        measured["columns"] = _same(host, full, _tried(host, one, 0, None, cache_with(kept, half), half))
    return measured


def _same(host: Host, full: Tensor, got: Tensor | None) -> bool:
    # The residuals have been rounded to their own dtype once more than in a full forward.
    tolerance = max(1e-4, 16 * torch.finfo(host.dtype).eps)
    return got is not None and bool((got - full).abs().max() <= tolerance * full.abs().max().clamp(min=1e-12))


def _tried(
    host: Host, one: Batch, layer: int, residual: Tensor | None, cache: Any = None, start: int = 0
) -> Tensor | None:
    """The last output of a resumed forward, or None where this network cannot run one."""
    try:
        with resumed(host, layer, residual):
            return _last_out(host, one, cache, start)
    except (TypeError, AttributeError, RuntimeError, ValueError, IndexError):
        return None


def _last_out(host: Host, one: Batch, cache: Any = None, start: int = 0) -> Tensor:
    """The last block's output at the last token of a one-row batch, [feature] float32, whatever edits are active."""
    from .editing.actions import Tap
    from .editing.session import Session
    from .run import run

    session = Session(host)
    tap = Tap(host.table[f"layers.{host.layers - 1}.out"], None, keep_graph=False)
    session.add_tap(tap)
    session.stops = True
    with torch.no_grad(), hooks_alone(), session.active():
        run(host, one, head=False, cache=cache, start=start)
    assert tap.value is not None
    return tap.value[0, -1].float()
