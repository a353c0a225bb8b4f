"""Every name of transformers that is private or has changed between the supported releases, in one place.

`tests/engine/test_transformers_names.py` is the canary: it fails when a release moves one of them.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

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


def new_cache() -> Any:
    """An empty cache that keeps every column of every layer."""
    from transformers import DynamicCache

    return DynamicCache()


def cache_argument(accepts: frozenset[str]) -> str | None:
    """The name under which this network's forward takes its cache; None if it takes none."""
    return next((name for name in CACHE_ARGUMENTS if name in accepts), None)


def cache_contents(cache: Any) -> list[tuple[Tensor, Tensor]]:
    """Keys and values of each layer, [example, head, column, feature]."""
    return [(layer.keys, layer.values) for layer in cache.layers]


def cache_with(contents: list[tuple[Tensor, Tensor]], columns: int) -> Any:
    """A cache that already holds the first `columns` columns of `contents`."""
    cache = new_cache()
    for layer, (keys, values) in enumerate(contents):
        cache.update(keys[:, :, :columns], values[:, :, :columns], layer)
    return cache


def is_compiled(module: nn.Module) -> bool:
    """Whether torch.compile has taken the network or a part of it: hooks added later would be ignored."""
    return any(
        type(part).__name__ == "OptimizedModule" or getattr(part, "_compiled_call_impl", None) is not None
        for part in module.modules()
    )


def keep_columns_argument(accepts: frozenset[str]) -> str | None:
    """The argument that limits logits to some columns, where the head has one."""
    return "logits_to_keep" if "logits_to_keep" in accepts else None
