"""Mapping the towers of a network of several: each as a network of its own, or in a forward of the whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ...errors import WrongLayout
from ...host import Host
from ..run import Inputs
from .equations import EquationCheck
from .trial import trial_inputs

# Settles one tower by itself: tower, `auto` or `measured`. Gives its checks.
Alone = Callable[[Host, str], tuple[EquationCheck, ...]]
# Holds one tower to its layout in a forward of the whole: network, inputs, prefix.
InWhole = Callable[[Host, Inputs, str], tuple[EquationCheck, ...]]


def map_towers(
    host: Host, layout: str, example: Inputs | None, alone: Alone, in_whole: InWhole
) -> tuple[EquationCheck, ...]:
    """What was measured of every tower whose addresses have a prefix; one that cannot be mapped keeps the reason.

    A decoder lives on what its encoder gives, so that only the whole can run it.
    """
    checks: list[EquationCheck] = []
    for prefix, tower in host.tower_hosts.items():
        try:
            found = alone(tower, layout)
            given = trial_inputs(host) if example is None and needs_encoder(tower) else example
            if not found and given is not None and tower.layout is not None:
                host.forget_table()
                found = in_whole(host, given, prefix)
        except WrongLayout as problem:
            tower.layout, tower.unmapped, found = None, str(problem), ()
        checks += [replace(check, tower=prefix) for check in found]
    host.forget_table()
    return tuple(checks)


def unmapped_towers(host: Host) -> str:
    """Why none of the towers has a layout; empty where one has."""
    if any(tower.layout for tower in host.tower_hosts.values()):
        return ""
    reasons = [f"{prefix}: {tower.unmapped or 'no layout'}" for prefix, tower in host.tower_hosts.items()]
    return f"it has several towers, none of which could be mapped ({'; '.join(reasons)})"


def map_language(host: Host, name: str, layout: str, alone: Alone) -> tuple[EquationCheck, ...]:
    """Give a network that no table knows the layout of its language model, and what was measured of that alone."""
    tower = host.part(name)
    checks = alone(tower, layout)
    host.layout, host.unmapped = host.of_language(tower), tower.unmapped
    return checks


# What modules that look at an encoder's output are called.
_CROSS = ("cross", "encdec", "encoder_attn")


def needs_encoder(host: Host) -> bool:
    """Whether this is a decoder whose blocks look at an encoder's output, which a trial forward does not have."""
    if "encoder_hidden_states" not in host.accepts:
        return False
    return any(mark in name.lower() for name, _ in host.module.named_modules() for mark in _CROSS)
