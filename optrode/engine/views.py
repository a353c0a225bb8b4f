"""From a module's own tensor to a site's activation and back: head split, fused parts, channel order, tuples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..errors import NotSupported, WrongShape
from ..host import SiteInfo
from ..layouts import Port


class Heads(Protocol):
    """What a view has to know of a network: how many heads the stack of blocks has in which a site lies."""

    def of(self, site: SiteInfo) -> Heads: ...

    def head_counts(self) -> dict[str, int]: ...


# Where the outputs of transformers keep the activation.
_NAMES = ("last_hidden_state", "logits")


def first_tensor(value: Any, where: str, item: int = 0) -> Tensor:
    """The activation in what a module returned: itself, or the first item (or number `item`) of a tuple."""
    if isinstance(value, Tensor) and not item:
        return value
    if isinstance(value, tuple | list) and len(value) > item and isinstance(value[item], Tensor):
        return value[item]
    for name in _NAMES:
        if isinstance(getattr(value, name, None), Tensor):
            return getattr(value, name)
    raise NotSupported(
        f"{where} returns {type(value).__name__}, in which no activation was found: choose a module inside it"
    )


def input_tensor(module: nn.Module, args: tuple, kwargs: dict) -> tuple[str | None, Tensor]:
    """The activation among a module's inputs, and the name it was passed by (None for the first place)."""
    if args and isinstance(args[0], Tensor):
        return None, args[0]
    for name in ("hidden_states", *kwargs):
        if isinstance(kwargs.get(name), Tensor):
            return name, kwargs[name]
    raise WrongShape(f"{type(module).__name__} got no tensor as input, so its input is no site")


def put_first(value: Any, new: Tensor, item: int = 0) -> Any:
    """`value` with its activation replaced; tuples and model outputs keep their other items."""
    if isinstance(value, Tensor):
        return new
    if type(value) in (tuple, list):
        return type(value)((*value[:item], new, *value[item + 1 :]))
    for name in _NAMES:
        if isinstance(value, Mapping) and isinstance(value.get(name), Tensor):
            return type(value)(**{**value, name: new})
    raise NotSupported(f"an edit cannot write into a {type(value).__name__}: choose a module inside it")


def site_view(host: Heads, site: SiteInfo, tensor: Tensor, rows: int) -> Tensor:
    """The activation as the site's axes name it, the feature axis last. A view where torch can give one.

    `rows` is the number of examples in the forward, for modules that see examples and tokens as one axis.
    """
    port, host = site.port, host.of(site)
    if port.flat:
        tensor = tensor.unflatten(0, (rows, -1))
    if port.channels_first:
        tensor = tensor.movedim(1, -1)
    if port.heads_first:
        tensor = tensor.transpose(1, 2)
    if port.part:
        tensor = _pieces(host, port, tensor)[port.part[0]]
    if port.heads and not port.headed:
        tensor = tensor.unflatten(-1, (host.head_counts()[port.heads], -1))
    return tensor


def site_unview(host: Heads, site: SiteInfo, original: Tensor, new: Tensor) -> Tensor:
    """The module's own tensor with the site's activation replaced by `new`."""
    port, host = site.port, host.of(site)
    if port.heads and not port.headed:
        new = new.flatten(-2)
    if port.flat:
        new = new.flatten(0, 1)
    if port.part:
        pieces = _pieces(host, port, original)
        pieces[port.part[0]] = new
        new = _joined(host, port, pieces)
    if port.heads_first:
        new = new.transpose(1, 2)
    if port.channels_first:
        new = new.movedim(-1, 1)
    return new


def _pieces(host: Heads, port: Port, tensor: Tensor) -> list[Tensor]:
    """The parts of a fused projection, each [..., width of the part]."""
    assert port.part is not None
    if port.packing == "equal":
        return list(tensor.chunk(port.part[1], dim=-1))
    counts = host.head_counts()
    query, key = counts["query"], counts["key"]
    if port.packing == "heads":
        size = tensor.shape[-1] // (query + 2 * key)
        return list(tensor.split([query * size, key * size, key * size], dim=-1))
    groups = tensor.unflatten(-1, (key, query // key + 2, -1)).split([query // key, 1, 1], dim=-2)
    return [piece.flatten(-3) for piece in groups]


def _joined(host: Heads, port: Port, pieces: list[Tensor]) -> Tensor:
    """The fused projection that consists of these parts."""
    if port.packing != "groups":
        return torch.cat(pieces, dim=-1)
    counts = host.head_counts()
    query, key = counts["query"], counts["key"]
    sizes = (query // key, 1, 1)
    groups = [piece.unflatten(-1, (key, size, -1)) for piece, size in zip(pieces, sizes, strict=True)]
    return torch.cat(groups, dim=-2).flatten(-3)
