"""Single blocks of a network, run for any number of rows and from any column on, with the host's own arguments."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn

from ...host import Host
from ..bypass import answered
from ..editing.actions import StopForward
from ..hooks import hooks_alone
from ..run import run
from ..transformers_names import new_cache, rows_cache
from ..views import first_tensor, put_first
from .arguments import Call, CannotSpread, Rule, call_of, rule_of, shape_of, spread
from .examples import Example, Target, repeated
from .record import Recording, record

# Network -> how the arguments of its blocks grow with the number of rows, by block and kind of call.
_RULES: weakref.WeakKeyDictionary[nn.Module, dict[tuple, Rule]] = weakref.WeakKeyDictionary()


class Blocks:
    """The blocks of a network for the rows of one example: `base` is the recording of its base input.

    Columns before `start` answer with the keys and values of the base.
    """

    def __init__(self, host: Host, example: Example, target: Target, base: Recording):
        self.host = host
        self.example = example
        self.target = target
        self.base = base
        self.blocks = list(host.blocks)
        self.calls: dict[int, list[Call]] = {0: base.calls}
        self.caches: dict[int, Any] = {0: None}
        self.rules = _RULES.setdefault(host.module, {})
        # How often a block ran, and on how many rows times columns.
        self.ran = 0
        self.tokens = 0

    def stream(self, layer: int) -> Tensor:
        """What block `layer` reads in the base, [1, token, ...]; after the last block, what that returned."""
        if layer < len(self.blocks):
            return self.base.calls[layer].stream
        return first_tensor(self.base.calls[-1].output, "the last block")

    def run(self, layer: int, start: int, stream: Tensor) -> Tensor:
        """The stream after one block, for rows of the columns from `start` on."""
        call = self._calls(start)[layer]
        args, kwargs = spread(call, self._rule(layer, start, call), stream, self.caches[start])
        self.ran += 1
        self.tokens += stream.shape[0] * (stream.shape[1] if stream.dim() == 3 else 1)
        return first_tensor(self.blocks[layer](*args, **kwargs), type(self.blocks[layer]).__name__)

    def forget(self) -> None:
        """Let go of how blocks are called from other columns than the first."""
        for kept in (self.calls, self.caches):
            for start in [start for start in kept if start]:
                del kept[start]  # type: ignore[attr-defined]

    def _calls(self, start: int) -> list[Call]:
        if start not in self.calls:
            self.caches[start] = rows_cache(self.base.keys_values, start)
            self.calls[start] = self._hollow(1, start)
        return self.calls[start]

    def _rule(self, layer: int, start: int, call: Call) -> Rule:
        key = (layer, shape_of(call))
        if key not in self.rules:
            one, two = self._calls(start), self._two_rows(start)
            if len(one) != len(two):
                raise CannotSpread
            for number, pair in enumerate(zip(one, two, strict=True)):
                self.rules[number, shape_of(pair[0])] = rule_of(*pair)
        return self.rules[key]

    def _two_rows(self, start: int) -> list[Call]:
        if start:
            return self._hollow(2, start)
        cache = new_cache() if self.base.keys_values else None
        with hooks_alone():
            return record(self.host, repeated(self.example.base, 2), [], self.target, calls=True, cache=cache).calls

    def _hollow(self, rows: int, start: int) -> list[Call]:
        """How the network calls its blocks on some rows of the base from column `start` on; no block runs."""
        calls: list[Call] = []

        def answer(index: int, own: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
            call = call_of(self.blocks[index], args, kwargs)
            # The same stream goes through all blocks, so that keeping it for each costs nothing.
            calls.append(call)
            if index == len(self.blocks) - 1:
                raise StopForward
            return put_first(self.base.calls[index].output, call.stream)

        with torch.no_grad(), hooks_alone(), answered(self.host, answer):
            cache = rows_cache(self.base.keys_values, start)
            run(self.host, repeated(self.example.base, rows), head=False, cache=cache, start=start)
        return calls
