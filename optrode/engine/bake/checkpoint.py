"""An edit as plain weights: a network of the host's very class, which saves and loads as one without optrode."""

from __future__ import annotations

import copy
from itertools import combinations
from typing import Any

import torch
from torch import nn

from ...edits.base import Edit
from ...errors import NotSupported
from ...host import Host
from ..twin import twin
from .bake import find_places, fold_into, wanted_of
from .check import compared, inputs_of

# Entries of configs that give layers a bias, where their network has a choice.
_SWITCHES = ("mlp_bias", "attention_bias")


def fold(host: Host, edit: Edit) -> nn.Module:
    """A network of the host's very class with `edit` in its biases: `save_pretrained` writes a plain checkpoint.

    Any program that loads the checkpoint runs the edit without knowing of it. Weights are shared with the host in
    memory. Only vectors that are added at all positions can be folded, and only where a layer with a bias gives the
    site: one that the network has, or one that its config can switch on (`mlp_bias`, `attention_bias`; the other
    biases are then zero). In training, dropout that follows such a layer meets the vector too.

    Raises `NotSupported` for any other edit, and says which site it is.
    """
    wanted = wanted_of(host, edit)
    network = twin(wanted.host.module)
    inputs = inputs_of(wanted.host)
    found = find_places(wanted, network, inputs)
    for site in wanted.sites:
        if site.address not in found:
            raise NotSupported(
                f"the edit at {site.address} cannot be folded: only a vector that is added at all positions can, where "
                "no other edit comes between and a layer's bias gives the site; use edit.bake(model)"
            )
    fold_into(wanted, network, found)
    _switch_on(network)
    compared(wanted.host, wanted.edit, network, inputs)
    return network


def _switch_on(network: nn.Module) -> None:
    """Let the config say which layers have a bias, and give zero to those that it says have one too."""
    config: Any = getattr(network, "config", None)
    if not hasattr(config, "to_dict"):
        return
    names = set(network.state_dict())
    off = [name for name in _SWITCHES if getattr(config, name, None) is False]
    for count in range(len(off) + 1):
        for switches in combinations(off, count):
            plain, shapes = _empty(type(network), config, switches)
            if names <= set(shapes):
                for name in set(shapes) - names:
                    _zero(network, name, shapes[name])
                network.config = plain
                _share_config(network, config, plain)
                return
    lacking = sorted(name for name in names - set(_empty(type(network), config, ())[1]))
    raise NotSupported(
        f"{type(network).__name__} has no {lacking[0]} by its config, so a checkpoint could not hold it: use "
        "edit.bake(model)"
    )


def _empty(kind: Any, config: Any, switches: tuple[str, ...]) -> tuple[Any, dict[str, torch.Size]]:
    """A config with biases switched on, and the shape of every weight that a network made from it has."""
    changed = copy.deepcopy(config)
    for name in switches:
        setattr(changed, name, True)
    with torch.device("meta"):
        made = kind(copy.deepcopy(changed))
    return changed, {name: tensor.shape for name, tensor in made.state_dict().items()}


def _zero(network: nn.Module, name: str, shape: torch.Size) -> None:
    path, _, own = name.rpartition(".")
    module = network.get_submodule(path)
    weight = module._parameters["weight"]
    assert weight is not None
    module._parameters[own] = nn.Parameter(torch.zeros(shape, dtype=weight.dtype, device=weight.device))


def _share_config(network: nn.Module, old: Any, new: Any) -> None:
    """All parts of a network look at one config."""
    for module in network.modules():
        if module.__dict__.get("config") is old:
            module.__dict__["config"] = new
