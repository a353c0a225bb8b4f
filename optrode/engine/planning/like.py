"""Inputs like those of a read, of any number of rows and tokens, to try a network on."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace

from torch import Tensor

from ...batches import Batch
from ...errors import NotSupported
from ...host import Host
from ..mapping.trial import trial_ids
from ..places import batch_of
from ..resume import Residuals
from ..run import Inputs


@dataclass(frozen=True)
class Like:
    """Made-up inputs of one kind. `rows` and `tokens` are those of the real ones (0 tokens where there are none).

    `make(rows, tokens)` gives inputs of any size; where `any_tokens` is False all have the tokens, pixels or features
    of the first real row, which is then repeated. Inputs of the same `key` give activations of the same shapes.
    `longest` is the longest row that the network has positions for, as far as its config says.
    """

    rows: int
    tokens: int
    any_tokens: bool
    key: Hashable
    make: Callable[[int, int], Inputs]
    longest: int = 10**9


def like(host: Host, inputs: Batch | Tensor | dict[str, Tensor] | Residuals) -> Like:
    """What inputs like these look like. Nothing runs. Raises `NotSupported` for inputs whose rows nobody knows."""
    if isinstance(inputs, Residuals):
        inputs = inputs.batch
    ids = _only_ids(inputs)
    if ids is not None and trial_ids(host, 1, 1) is not None:
        return Like(
            ids.shape[0], ids.shape[1], True, "tokens", lambda rows, tokens: _batch(host, rows, tokens), _longest(host)
        )
    if isinstance(inputs, Batch):
        batch = inputs
        key = ("batch", batch.width, *_trailing(batch.extra))
        return Like(len(batch), batch.width, False, key, lambda rows, _: _repeated(batch, rows))
    if isinstance(inputs, Tensor):
        tensor = inputs
        return Like(len(tensor), 0, False, _trailing({"": tensor}), lambda rows, _: _first(tensor, rows))
    if not all(isinstance(value, Tensor) for value in inputs.values()) or not inputs:
        raise NotSupported("a plan needs tensors with one entry for each example: only those have rows")
    given, rows = inputs, next((len(value) for value in inputs.values() if value.dim()), 0)
    tokens = given["input_ids"].shape[1] if "input_ids" in given else 0

    by_row = {name for name, value in given.items() if value.dim() and len(value) == rows}

    def make(rows_made: int, _: int) -> Inputs:
        return {name: _first(value, rows_made) if name in by_row else value for name, value in given.items()}

    return Like(rows, tokens, False, _trailing(given), make)


def _longest(host: Host) -> int:
    named = (host.entry(name) for name in ("max_position_embeddings", "n_positions"))
    return min((limit for limit in named if isinstance(limit, int) and limit > 0), default=10**9)


def _only_ids(inputs: Batch | Tensor | dict[str, Tensor]) -> Tensor | None:
    """The token ids, where they are all there is."""
    if isinstance(inputs, Batch):
        return None if inputs.extra else inputs.ids
    if isinstance(inputs, Tensor):
        return None if inputs.is_floating_point() or inputs.dim() != 2 else inputs
    return inputs.get("input_ids") if set(inputs) <= {"input_ids", "attention_mask"} else None


def _batch(host: Host, rows: int, tokens: int) -> Batch:
    ids = trial_ids(host, rows, tokens)
    assert ids is not None
    return batch_of(host, {"input_ids": ids})


def _repeated(batch: Batch, rows: int) -> Batch:
    """The first example with all of its columns, several times."""
    return replace(
        batch,
        ids=_first(batch.ids, rows),
        mask=_first(batch.mask, rows),
        roles=_first(batch.roles, rows),
        special=_first(batch.special, rows),
        instruction_end=_first(batch.instruction_end, rows),
        offsets=_first(batch.offsets, rows),
        texts=batch.texts[:1] * rows,
        extra={name: _first(value, rows) for name, value in batch.extra.items()},
        numbers=None,
        total=None,
    )


def _first(tensor: Tensor, rows: int) -> Tensor:
    return tensor[:1].expand(rows, *tensor.shape[1:]).contiguous() if tensor.dim() else tensor


def _trailing(tensors: dict[str, Tensor]) -> tuple[Hashable, ...]:
    return tuple((name, tuple(value.shape[1:]), value.dtype) for name, value in tensors.items())
