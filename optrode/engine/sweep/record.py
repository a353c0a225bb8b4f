"""One forward of one input, and everything of it that a sweep needs again."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ...batches import Batch
from ...errors import NotSupported
from ...host import Host, SiteInfo
from ..bypass import answered
from ..editing.actions import Tap
from ..editing.session import Session
from ..places import Forward
from ..run import Inputs, run
from ..transformers_names import cache_contents
from ..views import first_tensor
from .arguments import Call, call_of
from .examples import Target


@dataclass
class Recording:
    """`values` are those of the sites without the axis of examples, `target` is [row, position, ...] float32.

    `calls` are the calls of the blocks, in order; `chained` says that every block was given what the one before it
    returned. `keys_values` are those of each block, [row, head, column, feature].
    """

    values: dict[str, Tensor]
    target: Tensor
    calls: list[Call] = field(default_factory=list)
    chained: bool = True
    keys_values: list[tuple[Tensor, Tensor]] = field(default_factory=list)


def record(
    host: Host, inputs: Inputs, sites: list[SiteInfo], target: Target, *, calls: bool = False, cache: Any = None
) -> Recording:
    """Run `inputs` under whatever edits are active, and keep sites, target and, where asked for, calls and cache."""
    taps, found = run_tapped(host, inputs, sites, target, calls=calls, cache=cache)
    width = getattr(inputs, "width", None)
    result = Recording({tap.site.address: tap.value[0] for tap in taps[:-1] if tap.value is not None}, taps[-1].value)  # type: ignore[arg-type]
    result.target = target.of(result.target, width)
    result.calls, result.chained = found
    if cache is not None:
        result.keys_values = cache_contents(cache)
    return result


def run_tapped(
    host: Host,
    inputs: Inputs,
    sites: list[SiteInfo],
    target: Target,
    *,
    calls: bool = False,
    cache: Any = None,
    session: Session | None = None,
    stop: bool = False,
) -> tuple[list[Tap], tuple[list[Call], bool]]:
    """One forward with a tap at each site and, last, at the target; with `stop` the whole network, up to there."""
    session = session or Session(host)
    taps = [Tap(site, None, keep_graph=False) for site in (*sites, target.site)]
    for tap in taps:
        session.add_tap(tap)
    # Where the head runs, nothing comes after what is wanted.
    session.stops = stop or (not needs_head(target) and all(tap.site.rank is not None for tap in taps))
    # Some networks call a part of their base instead of the base, where a session would see a forward begin.
    session.forward = forward_of(inputs)
    listener = _Listener(host)
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(session.active())
        if calls:
            stack.enter_context(answered(host, listener))
        columns = None if target.columns is None else torch.tensor(target.columns)
        run(host, inputs, head=stop or needs_head(target), columns=columns, cache=cache)
    for tap in taps:
        if tap.fired != 1 or tap.value is None:
            raise NotSupported(
                f"{tap.site.address} ran {tap.fired} times in one forward, so it is not one activation: choose another"
            )
    return taps, (listener.calls, listener.chained)


def needs_head(target: Target) -> bool:
    """Whether the whole network has to run for the target."""
    return target.site.address == "logits" or target.site.rank is None


def forward_of(inputs: Inputs) -> Forward:
    """What a whole forward of these inputs brings."""
    if isinstance(inputs, Batch):
        return Forward(inputs, len(inputs), 0, inputs.width)
    value = inputs if isinstance(inputs, Tensor) else next(iter(inputs.values()))
    return Forward(None, value.shape[0], 0, value.shape[1] if value.dim() > 1 else 1)


class _Listener:
    """Answers for blocks by running them, and notes how they were called."""

    def __init__(self, host: Host):
        self.blocks = list(host.blocks) if host.layers else []
        self.calls: list[Call] = []
        self.chained = True

    def __call__(self, index: int, own: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        call = call_of(self.blocks[index], args, kwargs)
        # Some blocks write into what they are given.
        call = replace(call, stream=call.stream.clone())
        if self.calls:
            before = first_tensor(self.calls[-1].output, type(self.blocks[index - 1]).__name__)
            self.chained &= len(self.calls) == index and torch.equal(before, call.stream)
        output = own(*args, **kwargs)
        self.calls.append(replace(call, output=output))
        return output
