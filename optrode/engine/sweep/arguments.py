"""The arguments that a network gives to a block, made for any number of rows.

They are the host's own: masks, rotary embeddings, position ids, biases, as the network's forward made them for one row.
How each grows with the number of rows is found by comparing them with those for two rows, and nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..views import input_tensor

# Where a value stands: numbers of arguments, names, and numbers inside of tuples.
Path = tuple[int | str, ...]
# Path of a tensor -> the axis along which it is repeated for more rows; None where all rows share it.
Rule = dict[Path, int | None]


class CannotSpread(Exception):
    """What a block is given does not grow with the number of rows in any way that is known."""


@dataclass(frozen=True)
class Call:
    """One call of a block: what it was given, the stream and where it stands among that, and what was returned."""

    args: tuple
    kwargs: dict[str, Any]
    stream_at: Path
    stream: Tensor
    output: Any

    @property
    def leaves(self) -> dict[Path, Any]:
        """Everything that it was given but the stream."""
        found = dict(_leaves((), (self.args, self.kwargs)))
        return {path[1:]: value for path, value in found.items() if path[1:] != self.stream_at}


def call_of(block: nn.Module, args: tuple, kwargs: dict[str, Any]) -> Call:
    """A call that has not been answered yet."""
    name, stream = input_tensor(block, args, kwargs)
    return Call(args, kwargs, (0,) if name is None else (name,), stream, None)


def rule_of(one: Call, two: Call) -> Rule:
    """How the tensors of a call grow, from the same call with one and with two equal rows.

    Raises `CannotSpread` where a tensor is not the one of a single row, repeated along one axis or not at all.
    """
    first, second = one.leaves, two.leaves
    if first.keys() != second.keys():
        raise CannotSpread
    rule: Rule = {}
    for path, value in first.items():
        other = second[path]
        if not isinstance(value, Tensor):
            if isinstance(other, Tensor):
                raise CannotSpread
            continue
        axes = [axis for axis in range(value.dim()) if value.shape[axis] != other.shape[axis]]
        if len(axes) > 1 or value.dim() != other.dim():
            raise CannotSpread
        rule[path] = axes[0] if axes else None
        if not torch.equal(_repeated(value, rule[path], 2), other):
            raise CannotSpread
    return rule


def shape_of(call: Call) -> tuple:
    """What two calls share that grow by the same rule: which arguments there are, and which of them are tensors."""
    return tuple((path, value.dim() if isinstance(value, Tensor) else None) for path, value in call.leaves.items())


def spread(call: Call, rule: Rule, stream: Tensor, cache: Any) -> tuple[tuple, dict[str, Any]]:
    """The arguments of a call for the rows of `stream`; any cache among them gives way to `cache`."""
    rows = len(stream)

    def value_at(path: Path, value: Any) -> Any:
        if path == call.stream_at:
            return stream
        if isinstance(value, Tensor):
            return _repeated(value, rule[path], rows)
        return cache if hasattr(value, "get_seq_length") else value

    args = tuple(_rebuilt((index,), value, value_at) for index, value in enumerate(call.args))
    return args, {name: _rebuilt((name,), value, value_at) for name, value in call.kwargs.items()}


def _repeated(value: Tensor, axis: int | None, rows: int) -> Tensor:
    if axis is None or rows == 1:
        return value
    if value.shape[axis] == 1:
        return value.expand(*value.shape[:axis], rows, *value.shape[axis + 1 :])
    return value.repeat(*[1] * axis, rows, *[1] * (value.dim() - axis - 1))


def _rebuilt(path: Path, value: Any, change: Callable[[Path, Any], Any]) -> Any:
    if type(value) in (tuple, list):
        return type(value)(_rebuilt((*path, index), item, change) for index, item in enumerate(value))
    if type(value) is dict:
        return {name: _rebuilt((*path, name), item, change) for name, item in value.items()}
    return change(path, value)


def _leaves(path: Path, value: Any) -> Iterator[tuple[Path, Any]]:
    if type(value) in (tuple, list):
        for index, item in enumerate(value):
            yield from _leaves((*path, index), item)
    elif type(value) is dict:
        for name, item in value.items():
            yield from _leaves((*path, name), item)
    else:
        yield path, value
