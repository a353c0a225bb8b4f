"""Every name of transformers that is private or has changed between the supported releases, in one place.

`tests/engine/test_transformers_names.py` is the canary: it fails when a release moves one of them.
"""

from __future__ import annotations

from typing import Any

from torch import nn

# The cache argument: `past_key_values` up to 5.23, `cache` from 5.24 on.
CACHE_ARGUMENTS = ("cache", "past_key_values")


def cache_of(args: tuple, kwargs: dict[str, Any]) -> Any:
    """The key-value cache among the arguments of a forward, or None."""
    for name in CACHE_ARGUMENTS:
        if kwargs.get(name) is not None:
            return kwargs[name]
    return next((value for value in args if hasattr(value, "get_seq_length")), None)


def cache_length(cache: Any) -> int:
    """Number of columns that the cache holds already."""
    return int(cache.get_seq_length()) if hasattr(cache, "get_seq_length") else 0


def is_compiled(module: nn.Module) -> bool:
    """Whether torch.compile has taken the network or a part of it: hooks added later would be ignored."""
    return any(
        type(part).__name__ == "OptimizedModule" or getattr(part, "_compiled_call_impl", None) is not None
        for part in module.modules()
    )


def keep_columns_argument(accepts: frozenset[str]) -> str | None:
    """The argument that limits logits to some columns, where the head has one."""
    return "logits_to_keep" if "logits_to_keep" in accepts else None
