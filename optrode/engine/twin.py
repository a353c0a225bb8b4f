"""A second network object over the same weights: what is put into it does not touch the first, and costs no memory."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

from ..errors import NotSupported
from ..host import Host
from ..offloaded import execution_device
from .hooks import INSTALL
from .transformers_names import is_compiled, uncompiled_part

# What a network counts up while it trains: each of the two counts for itself.
_COUNTED = ("running_mean", "running_var", "num_batches_tracked")


def twin(network: nn.Module) -> nn.Module:
    """A copy of the module tree, of the same classes, whose parameters and buffers share the memory of the original.

    Parts that `torch.compile` has wrapped come back as they were before. Running statistics of batch norms are copied.
    Raises `NotSupported` for a network whose weights accelerate moves about, and one that cannot be copied.
    """
    if execution_device(network) is not None:
        raise NotSupported(
            f"{type(network).__name__} is placed by accelerate, whose hooks bring and take its weights: load it on one "
            "device, or use the live edit (model.edited)"
        )
    memo: dict[int, Any] = {}
    for module in network.modules():
        for name, tensor in _tensors(module):
            if id(tensor) not in memo and name not in _COUNTED:
                memo[id(tensor)] = _alias(tensor)
                # A memo keeps nothing alive by itself, and a freed tensor could lend its id to another.
                memo.setdefault(-1, []).append(tensor)
    try:
        for wrapped in reversed(list(network.modules())):
            inner = uncompiled_part(wrapped)
            if inner is not None:
                memo[id(wrapped)] = copy.deepcopy(inner, memo)
        copied = copy.deepcopy(network, memo)
    except (TypeError, RuntimeError, AttributeError) as problem:
        raise NotSupported(
            f"{type(network).__name__} holds something that cannot be copied ({problem}): use the live edit"
        ) from problem
    # A live edit may be active on the original, in this context or another.
    for module in copied.modules():
        for side in INSTALL.values():
            side.take_off(module)
    return copied


def uncompiled(host: Host) -> Host:
    """The host itself, or where `torch.compile` has taken its network or a part of it, a host of the network before."""
    if not is_compiled(host.module):
        return host
    plain = copy.copy(host)
    for name in ("table", "layers", "layers_by_tower", "paths", "accepts", "head_accepts"):
        plain.__dict__.pop(name, None)
    plain.module = twin(host.module)
    plain.tower_hosts = {prefix: plain.part(path.rpartition(".")[2]) for prefix, path in host.tower_paths.items()}
    for prefix, tower in host.tower_hosts.items():
        plain.tower_hosts[prefix].layout = tower.layout
    plain.tower_paths = {prefix: path.replace("_orig_mod.", "") for prefix, path in host.tower_paths.items()}
    return plain


def refuse_compiled(host: Host) -> None:
    """Raise `NotSupported` where `torch.compile` has taken the network or a part of it: hooks would do nothing."""
    if is_compiled(host.module):
        raise NotSupported(
            f"{host.name} is compiled, where hooks added later are ignored: compile what edit.bake(model) gives, or "
            "edit the model before torch.compile"
        )


def _tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    own = [*module._parameters.items(), *module._buffers.items(), *vars(module).items()]
    return [(name, value) for name, value in own if isinstance(value, Tensor)]


def _alias(tensor: Tensor) -> Tensor:
    """Another tensor object over the same memory: a cast or a move of one leaves the other alone."""
    if type(tensor) is nn.Parameter and type(tensor.data) is Tensor:
        alias = nn.Parameter(tensor.detach(), requires_grad=tensor.requires_grad)
        alias.__dict__.update(tensor.__dict__)
        return alias
    if type(tensor) is Tensor:
        return tensor.detach()
    # Quantised weights are kinds of their own, and nobody casts them.
    return tensor


def shared(one: nn.Module, other: nn.Module) -> int:
    """Bytes of the parameters and buffers of `other` that lie in memory of `one`."""
    known = {tensor.untyped_storage().data_ptr() for tensor in (*one.parameters(), *one.buffers())}
    mine = {tensor.untyped_storage().data_ptr(): tensor for tensor in (*other.parameters(), *other.buffers())}
    return sum(tensor.untyped_storage().nbytes() for place, tensor in mine.items() if place in known)
