"""From a module's own tensor to a site's activation and back: head split, fused parts, channel order, tuples."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import NotSupported
from ..host import Host, SiteInfo


def first_tensor(value: Any, where: str) -> Tensor:
    """The activation in what a module returned: itself, or the first item of a tuple."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, tuple | list) and value and isinstance(value[0], Tensor):
        return value[0]
    for name in ("last_hidden_state", "logits"):
        if isinstance(getattr(value, name, None), Tensor):
            return getattr(value, name)
    raise NotSupported(
        f"{where} returns {type(value).__name__}, in which no activation was found: choose a module inside it"
    )


def put_first(value: Any, new: Tensor) -> Any:
    """`value` with its activation replaced; tuples keep their other items."""
    if isinstance(value, Tensor):
        return new
    if type(value) in (tuple, list):
        return type(value)((new, *value[1:]))
    raise NotSupported(f"an edit cannot write into a {type(value).__name__}: choose a module inside it")


def site_view(host: Host, site: SiteInfo, tensor: Tensor) -> Tensor:
    """The activation as the site's axes name it, the feature axis last. A view where torch can give one."""
    port = site.port
    if port.channels_first:
        tensor = tensor.movedim(1, -1)
    if port.part:
        tensor = tensor.chunk(port.part[1], dim=-1)[port.part[0]]
    if port.heads and not port.headed:
        tensor = tensor.unflatten(-1, (host.head_counts()[port.heads], -1))
    return tensor


def site_unview(site: SiteInfo, original: Tensor, new: Tensor) -> Tensor:
    """The module's own tensor with the site's activation replaced by `new`."""
    port = site.port
    if port.heads and not port.headed:
        new = new.flatten(-2)
    if port.part:
        index, count = port.part
        pieces = list(original.chunk(count, dim=-1))
        pieces[index] = new
        new = torch.cat(pieces, dim=-1)
    if port.channels_first:
        new = new.movedim(-1, 1)
    return new
