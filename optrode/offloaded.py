"""Networks whose weights accelerate keeps elsewhere: on several devices, in main memory or on disk.

accelerate hangs a hook on each module, which puts the weights in place for the module's forward and takes them away
after it; in between the network holds placeholders on the `meta` device. Every name of accelerate that optrode stands
on is in this file, and `tests/test_offloaded.py` fails when a release moves one of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


def alignment_hooks(module: nn.Module) -> list[Any]:
    """The hooks of accelerate on one module that place weights and inputs; those in a chain one by one."""
    hook = module.__dict__.get("_hf_hook")
    if hook is None:
        return []
    return [one for one in getattr(hook, "hooks", (hook,)) if hasattr(one, "execution_device")]


def execution_device(network: nn.Module) -> torch.device | None:
    """Where inputs of a network go that accelerate has placed; None for all others."""
    for module in network.modules():
        for hook in alignment_hooks(module):
            if hook.execution_device is not None:
                return torch.device(hook.execution_device)
    return None


def stored_tensors(network: nn.Module) -> Iterator[tuple[str, Tensor | None]]:
    """Every entry of the state dict by name, with weights fetched from where they are kept.

    None for an entry that is on the `meta` device and that no hook can fetch. Costs reading each offloaded tensor once,
    one at a time.
    """
    for name, tensor in sorted(network.state_dict().items()):
        yield name, tensor if tensor.device.type != "meta" else _fetched(network, name)


def _fetched(network: nn.Module, name: str) -> Tensor | None:
    """The weight of a placeholder: its own module's hook knows it, or that of a module around it."""
    path, own = name.split("."), list[str]()
    while path:
        own.insert(0, path.pop())
        for hook in alignment_hooks(network.get_submodule(".".join(path))):
            weights = getattr(hook, "weights_map", None)
            if hook.offload and weights is not None:
                try:
                    return weights[".".join(own)]
                except KeyError:
                    continue
    return None


def put_away(network: nn.Module) -> None:
    """Take away the weights of modules whose forward was left before its end, as their hooks would have done."""
    for module in network.modules():
        for hook in alignment_hooks(module):
            if hook.offload and _is_loaded(module, hook):
                hook.post_forward(module, None)


def _is_loaded(module: nn.Module, hook: Any) -> bool:
    held: list[Tensor] = [*module.parameters(recurse=hook.place_submodules)]
    if hook.offload_buffers:
        held += module.buffers(recurse=hook.place_submodules)
    return any(tensor.device.type != "meta" for tensor in held)
