"""From the arguments of `read` and `plan` to a request and inputs, so that both mean the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ...batches import Batch
from ...encoding import Prompt
from ...host import Host
from ...pictures import are_pictures, pixels
from ...positions import Positions
from ..generating.prompts import encode_edited
from ..places import batch_of
from ..resume import Residuals
from ..run import Inputs
from .reductions import OwnReduction, reduction
from .request import Request

# Pictures (`optrode.pictures`) are of several types, none of which needs to be installed.
Readable: TypeAlias = Prompt | Sequence[Prompt] | Inputs | Residuals | Any

# Tokens in one forward: large enough to keep two cores busy, small enough to stay in memory with any number of sites.
TOKENS_PER_FORWARD = 2048


def resolved(
    host: Host,
    inputs: Readable,
    sites: str | Sequence[str],
    *,
    positions: str | Positions | None = None,
    grad: bool = False,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    reduce: str | OwnReduction | None = None,
    template: str | None = None,
    system: str | None = None,
) -> tuple[Request, Batch | Tensor | dict[str, Tensor] | Residuals]:
    """The request, and the inputs with prompts encoded. Nothing of the network runs."""
    request = Request(
        host.match(sites),
        Positions(positions) if isinstance(positions, str) else positions,
        grad,
        torch.device(device) if device is not None else None,
        dtype,
        reduction(reduce),
    )
    if isinstance(inputs, Residuals):
        return _only_last(request), inputs
    if are_pictures(host, inputs):
        inputs = pixels(host, inputs)
    elif isinstance(inputs, Mapping):
        # What tokenizers and processors give is a mapping of their own.
        inputs = dict(inputs)
    if isinstance(inputs, dict) and request.positions is not None and "input_ids" in inputs:
        inputs = batch_of(host, inputs)
    if isinstance(inputs, Tensor | dict):
        return request, inputs
    batch = inputs if isinstance(inputs, Batch) else encode_edited(host, inputs, template=template, system=system)
    request = _only_last(request)
    request.check(batch)
    return request, batch


def _only_last(request: Request) -> Request:
    """The last of all tokens is the last prompt token, whose logits can be had alone."""
    reduces_to_last = request.reduction is not None and request.reduction.text == "last"
    if reduces_to_last and (request.positions is None or request.positions.text in ("all", "prompt")):
        return replace(request, positions=Positions("last_prompt"))
    return request
