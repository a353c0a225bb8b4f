"""From the last block's output to the metric's activation: the host's own norm and head, with no block running."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...host import Host, SiteInfo
from ..bypass import answered
from ..hooks import hooks_alone
from ..views import input_tensor, put_first
from .blocks import Blocks
from .examples import Target, at_columns, repeated
from .frontier import Group
from .record import run_tapped

# Rows times positions whose logits are computed at once: 256 x 50,000 floats are 50 MB.
POSITIONS_AT_ONCE = 256


class Finish:
    """Takes rows through what comes after the blocks.

    `few` says that this works on the metric's columns alone, as where norm and head look at one token at a time;
    `only` are the tokens whose logits are wanted, where the head is a plain product (see `plain_head`).
    """

    def __init__(self, host: Host, blocks: Blocks, target: Target, few: bool, only: list[int] | None = None):
        self.host = host
        self.only = only
        self.blocks = blocks
        self.target = target
        self.few = few
        self.last = blocks.stream(len(blocks.blocks))

    def __call__(self, groups: list[Group]) -> list[tuple[list[int], Tensor]]:
        """Numbers of cells, and the target of each of them, [cell, position, ...] float32, in parts."""
        parts = []
        columns = self._columns()
        for group in groups:
            size = max(1, POSITIONS_AT_ONCE // (len(columns) if columns else 1))
            for begin in range(0, len(group.numbers), size):
                rows = self._rows(group, columns, slice(begin, begin + size))
                parts.append((group.numbers[begin : begin + size], rows))
        return [(numbers, self._target(rows)) for numbers, rows in _joined(parts)]

    def of_base(self) -> Tensor:
        """The base's own target, computed in this way: [1, position, ...]."""
        columns = self._columns()
        return self._target(self.last if columns is None else self.last[:, columns])

    def _columns(self) -> list[int] | None:
        return self.target.columns if self.few else None

    def _rows(self, group: Group, columns: list[int] | None, part: slice) -> Tensor:
        stream = group.stream[part]
        if columns is None and not group.start:
            return stream
        before = self.last[:, : group.start].expand(len(stream), *[-1] * (stream.dim() - 1))
        if columns is None:
            return torch.cat([before, stream], 1)
        own = [stream[:, column - group.start] if column >= group.start else before[:, column] for column in columns]
        return torch.stack(own, 1)

    def _target(self, rows: Tensor) -> Tensor:
        example, calls = self.blocks.example, self.blocks.base.calls
        inputs = repeated(example.base, len(rows))
        if self.few:
            assert example.batch is not None and self.target.columns is not None
            inputs = repeated(at_columns(example.batch, self.target.columns), len(rows))
        last = len(calls) - 1

        def answer(index: int, own: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
            return put_first(calls[index].output, rows if index == last else input_tensor(own, args, kwargs)[1])

        head = plain_head(self.host, self.target) if self.only is not None else None
        site = self.target.site if head is None else head[0]
        whole = Target(site, None if self.few else self.target.columns)
        with hooks_alone(), answered(self.host, answer):
            taps, _ = run_tapped(self.host, inputs, [], whole, stop=head is not None)
        value = taps[-1].value
        assert value is not None
        if head is not None:
            ids = torch.tensor(self.only, device=head[1].weight.device)
            bias = head[1].bias
            value = functional.linear(value, head[1].weight[ids], None if bias is None else bias[ids])
        elif self.only is not None:
            # Another thread has hooked the head in the meantime, so that it ran whole.
            value = value[..., self.only]
        return Target(self.target.site, whole.columns).of(value, example.width)


def plain_head(host: Host, target: Target) -> tuple[SiteInfo, nn.Linear] | None:
    """The input of the head and the head itself, where logits are no more than its product with that input."""
    if target.site.address != "logits" or not target.site.port.module:
        return None
    head = host.submodule(target.site.module)
    own = head._forward_hooks or head._forward_pre_hooks or "forward" in head.__dict__
    if type(head) is not nn.Linear or own:
        return None
    (site,) = host.match(f"module:{target.site.module}:in")
    return replace(site, rank=(host.layers + 1, 0)), head


def _joined(parts: list[tuple[list[int], Tensor]]) -> list[tuple[list[int], Tensor]]:
    """Small parts put together, so that the head is read from memory less often."""
    found: list[tuple[list[int], Tensor]] = []
    for numbers, rows in parts:
        room = POSITIONS_AT_ONCE // max(1, rows.shape[1])
        if found and len(found[-1][0]) + len(numbers) <= room and found[-1][1].shape[1:] == rows.shape[1:]:
            found[-1] = (found[-1][0] + numbers, torch.cat([found[-1][1], rows]))
        else:
            found.append((numbers, rows))
    return found
