"""What a baked network can be asked beside what its host's class gives: what is in it, and what it must refuse."""

from __future__ import annotations

import functools
from typing import Any

from torch import nn

from ...errors import NotSupported
from .here import renamed

LINES = "optrode_lines"
BY_STEPS = "optrode_by_steps"


def explain(network: nn.Module) -> str:
    """What was baked into a network, one line for each site. Raises `NotSupported` for one that holds no edit."""
    lines = network.__dict__.get(LINES)
    if lines is None:
        raise NotSupported(f"this {type(network).__name__} holds no baked edit: make one with edit.bake(model)")
    return "\n".join(lines)


def is_baked(network: nn.Module) -> bool:
    return LINES in network.__dict__


def finish(network: nn.Module, lines: list[str], *, by_steps: bool) -> nn.Module:
    """Give a twin its `explain` and what it refuses. `by_steps`: whether an edit in it depends on positions."""
    network.__class__ = _baked(type(network))
    network.__dict__[LINES] = tuple(lines)
    network.__dict__[BY_STEPS] = by_steps
    return network


_BAKED: dict[type[nn.Module], type[nn.Module]] = {}


def _baked(own: type[nn.Module]) -> type[nn.Module]:
    if own not in _BAKED:
        _BAKED[own] = _with_refusals(own)
    return _BAKED[own]


def _with_refusals(own: type[nn.Module]) -> type[nn.Module]:
    members: dict[str, Any] = {"explain": explain}
    if hasattr(own, "save_pretrained"):
        members["save_pretrained"] = functools.wraps(own.save_pretrained)(_refuse_saving)
    if hasattr(own, "generate"):
        members["generate"] = _generate(own)
    return renamed(own, members)


def _refuse_saving(self: nn.Module, *args: Any, **options: Any) -> None:
    raise NotSupported(
        "a baked network cannot be saved as a checkpoint, since its class would load it without the edit: save the "
        "edit (edit.save) and bake it again, or use edit.fold(model) where the network has a bias at that place"
    )


def _generate(own: Any) -> Any:
    @functools.wraps(own.generate)
    def generate(self: Any, *args: Any, **options: Any) -> Any:
        if self.__dict__[BY_STEPS]:
            _refuse_steps(self, options)
        return own.generate(self, *args, **options)

    return generate


def _refuse_steps(network: Any, options: dict[str, Any]) -> None:
    """A written token is known by coming alone, after a prompt that came as a whole."""

    def asked(name: str) -> Any:
        configured = options.get("generation_config") or getattr(network, "generation_config", None)
        return options.get(name, getattr(configured, name, None))

    if asked("use_cache") is False:
        problem = "without a cache: leave use_cache on"
    elif asked("prefill_chunk_size"):
        problem = "with a prompt that is read in parts: leave prefill_chunk_size out"
    elif options.get("assistant_model") is not None or asked("prompt_lookup_num_tokens"):
        problem = "in assisted decoding: leave the assistant out"
    else:
        return
    raise NotSupported(f"an edit that was baked at some positions cannot tell them {problem}")
