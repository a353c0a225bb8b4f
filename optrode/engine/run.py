"""Running the network: the base alone or with its head, up to the last site needed, from a cached residual on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from torch import Tensor

from ..batches import Batch
from ..errors import BadInput
from ..host import Host
from ..offloaded import put_away
from .actions import StopForward
from .places import RUNNING
from .transformers_names import cache_argument, keep_columns_argument

Inputs = Batch | dict[str, Tensor] | Tensor


@contextmanager
def running(host: Host, batch: Batch) -> Iterator[None]:
    """While the block runs, forwards of `host` know the roles of this batch's tokens."""
    token = RUNNING.set((host, batch))
    try:
        yield
    finally:
        RUNNING.reset(token)


def run(
    host: Host, inputs: Inputs, *, head: bool, columns: Tensor | None = None, cache: Any = None, start: int = 0
) -> Any:
    """One forward. Returns the network's output, or None if a session ended it early.

    `head=False` runs the base network alone; `columns` ([column] int64) limits logits to some columns where the
    network can do that. No KV cache is made unless one is given; `start` columns are then taken from it.
    """
    module = host.module if head else host.base
    arguments = call_arguments(host, inputs)
    keep = keep_columns_argument(host.head_accepts)
    if head and columns is not None and keep:
        arguments[keep] = (columns - start).to(host.device)
    if "use_cache" in host.accepts:
        arguments["use_cache"] = cache is not None
    if cache is not None:
        arguments[cache_argument(host.accepts) or "cache"] = cache
        for name in ("input_ids", "position_ids"):
            if name in arguments:
                arguments[name] = arguments[name][:, start:]
    knows = running(host, inputs) if isinstance(inputs, Batch) else nullcontext()
    with knows:
        try:
            if isinstance(inputs, Tensor) and not hasattr(host.config, "model_type"):
                return module(inputs.to(host.device))
            return module(**arguments)
        except StopForward:
            put_away(host.module)
            return None
        except BaseException:
            put_away(host.module)
            raise


def call_arguments(host: Host, inputs: Inputs) -> dict[str, Any]:
    """Keyword arguments of the network's forward for a batch, a dictionary of tensors or one tensor."""
    if isinstance(inputs, Batch):
        arguments = {"input_ids": inputs.ids, "attention_mask": inputs.mask.long(), **inputs.extra}
        # Left-padded rows need their own positions: some decoders would count the padding otherwise.
        if host.causal and "position_ids" in host.accepts:
            arguments["position_ids"] = inputs.position_ids
    elif isinstance(inputs, dict):
        arguments = dict(inputs)
    elif isinstance(inputs, Tensor):
        arguments = {_main_name(host, inputs): inputs}
    else:
        raise BadInput(
            f"inputs must be prompts, a Batch, a tensor or a dictionary of tensors, not {type(inputs).__name__}"
        )
    return {name: value.to(host.device) if isinstance(value, Tensor) else value for name, value in arguments.items()}


def _main_name(host: Host, tensor: Tensor) -> str:
    for name in ("pixel_values",) if tensor.is_floating_point() else ("input_ids",):
        if name in host.accepts:
            return name
    return next(iter(host.accepts), "input")
