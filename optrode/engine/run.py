"""Running the network: the base alone or with its head, up to the last site needed, from a cached residual on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from torch import Tensor

from ..batches import Batch
from ..encoding import Prompt
from ..errors import BadInput
from ..host import Host
from ..offloaded import put_away
from .editing.actions import StopForward
from .editing.scope import open_scopes
from .editing.undo import having
from .hooks import active_sessions
from .places import RUNNING
from .tower_forwards import arguments_of
from .transformers_names import cache_argument, keep_columns_argument

Inputs = Batch | dict[str, Tensor] | Tensor


@contextmanager
def running(host: Host, batch: Batch) -> Iterator[None]:
    """While the block runs, forwards of `host` know the roles of this batch's tokens.

    Raises `NotSupported` at the end when a block whose edits were active has ended meanwhile, in another thread.
    """
    scopes = open_scopes()
    with having(RUNNING, (host, batch)):
        yield
    for scope in scopes:
        scope.check()


def run(
    host: Host,
    inputs: Inputs,
    *,
    head: bool,
    columns: Tensor | None = None,
    cache: Any = None,
    start: int = 0,
    tower: str = "",
) -> Any:
    """One forward. Returns the network's output, or None if a session ended it early.

    `head=False` runs the base network alone, `tower` only one of its towers; `columns` ([column] int64) limits logits
    to some columns where the network can do that. No KV cache is made unless one is given; `start` columns are then
    taken from it.
    """
    module = host.tower_hosts[tower].module if tower else host.module if head else host.base
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
    if host.tower_hosts:
        arguments = arguments_of(host, arguments, tower)
    knows = running(host, inputs) if isinstance(inputs, Batch) else nullcontext()
    with knows:
        try:
            if tower:
                for session in active_sessions():
                    session.begin_forward(host.entrance, (), arguments)
            if isinstance(inputs, Tensor) and not hasattr(host.config, "model_type"):
                return module(inputs.to(host.device))
            return module(**arguments)
        except StopForward:
            put_away(host.module)
            return None
        except BaseException:
            put_away(host.module)
            raise


def forward(host: Host, inputs: Prompt | Sequence[Prompt] | Inputs, **arguments: Any) -> Any:
    """One forward of the whole network as its owner would run it, with graph; gives the network's own output.

    `inputs`: prompts, a `Batch`, a tensor or a dictionary of tensors. Of prompts and batches, edits and recordings know
    the roles of tokens, which a direct call of the network does not tell them. `arguments` go to the network's forward,
    such as `labels` ([example, token], -100 where nothing is to be predicted). No cache is made unless asked for.

    Costs a forward of the network in the mode it is in; gradients are on unless the caller has turned them off.
    """
    from .generating.prompts import encode_edited

    if not isinstance(inputs, Batch | dict | Tensor):
        inputs = encode_edited(host, inputs)
    with running(host, inputs) if isinstance(inputs, Batch) else nullcontext():
        if isinstance(inputs, Tensor) and not hasattr(host.config, "model_type"):
            return host.module(inputs.to(host.device), **arguments)
        given = call_arguments(host, inputs)
        if "use_cache" in host.accepts:
            given["use_cache"] = False
        return host.module(**(given | arguments))


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
