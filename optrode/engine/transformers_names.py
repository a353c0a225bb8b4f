"""Every name of transformers that is private or has changed between the supported releases, in one place.

`tests/engine/test_transformers_names.py` is the canary: it fails when a release moves one of them.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import NotSupported

# Where a config of ours keeps the owner's.
_OWN = "optrode_own"


def own_config(config: Any) -> Any:
    """The owner's config of a module, whether `config` is a copy of ours or the owner's itself."""
    return getattr(config, "__dict__", {}).get(_OWN, config)


def put_back_config(module: nn.Module) -> None:
    """Give a module the owner's config again where it has a copy of ours."""
    held = module.__dict__.get("config")
    if own_config(held) is not held:
        module.__dict__["config"] = own_config(held)


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


def rows_cache(contents: list[tuple[Tensor, Tensor]], columns: int) -> Any:
    """A cache that stands for the first `columns` columns (one at least) of one row, whatever number of rows asks it.

    Nothing is copied when it is made, and nothing that is put into it stays there.
    """
    cache = _rows_cache_class()()
    for layer, (keys, values) in enumerate(contents):
        super(type(cache), cache).update(keys[:, :, :1], values[:, :, :1], layer)
        cache.layers[layer].keys, cache.layers[layer].values = keys[:, :, :columns], values[:, :, :columns]
    return cache


@functools.cache
def _rows_cache_class() -> Any:
    from transformers import DynamicCache

    class RowsCache(DynamicCache):
        def update(
            self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
        ) -> tuple[Tensor, Tensor]:
            layer: Any = self.layers[layer_idx]
            rows = len(key_states)
            keys, values = layer.keys.expand(rows, -1, -1, -1), layer.values.expand(rows, -1, -1, -1)
            return torch.cat([keys, key_states], -2), torch.cat([values, value_states], -2)

    return RowsCache


def keeps_columns(config: Any) -> bool:
    """Whether a network's cache holds every column by itself, as that of attention does, and not a state of all."""
    from transformers import DynamicCache

    return not any(getattr(DynamicCache(config=config), "is_linear", ()))


def cropped_cache(cache: Any, columns: int) -> Any:
    """The cache without its last `columns` columns; it is changed in place.

    Raises `NotSupported` for a layer that has let go of what came before, as a sliding window that is full has.
    """
    try:
        # A negative number is one of columns to take away in all supported releases.
        cache.crop(-columns)
    except (RuntimeError, ValueError, NotImplementedError, AttributeError) as problem:
        raise NotSupported(f"this network's cache cannot be taken back by {columns} tokens: {problem}") from problem
    return cache


def branched_cache(cache: Any, copies: int) -> Any:
    """The cache with every row repeated; it is changed in place."""
    cache.batch_repeat_interleave(copies)
    return cache


def chosen_cache(cache: Any, rows: Tensor) -> Any:
    """The cache with these rows alone, in this order; it is changed in place."""
    cache.batch_select_indices(rows)
    return cache


def is_compiled(module: nn.Module) -> bool:
    """Whether torch.compile has taken the network or a part of it: hooks added later would be ignored."""
    return any(
        type(part).__name__ == "OptimizedModule" or getattr(part, "_compiled_call_impl", None) is not None
        for part in module.modules()
    )


def uncompiled_part(module: nn.Module) -> nn.Module | None:
    """The module that `torch.compile(module)` has wrapped; None for a module that is no such wrapper."""
    return module._modules.get("_orig_mod") if type(module).__name__ == "OptimizedModule" else None


def keep_columns_argument(accepts: frozenset[str]) -> str | None:
    """The argument that limits logits to some columns, where the head has one."""
    return "logits_to_keep" if "logits_to_keep" in accepts else None


# Fused experts: one module holds the weights of all of them and asks its config by which function to run.
_EXPERTS = "optrode"
_IMPLEMENTATION = "_experts_implementation_internal"


def has_fused_experts(module: Any) -> bool:
    """Whether the module runs through transformers' interface for experts, with weights of the kind it describes."""
    wanted = ("config", "num_experts", "down_proj", "has_gate", "has_bias", "is_transposed", "has_post_expert_norm")
    return all(hasattr(module, name) for name in wanted) and hasattr(type(module).forward, "__wrapped__")


def experts_config(module: Any, run: Callable[..., Tensor]) -> Any:
    """A copy of the module's config by which its forward calls `run(module, hidden_states, chosen, weights)`."""
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    ALL_EXPERTS_FUNCTIONS.register(_EXPERTS, run)
    config: Any = copy.copy(module.config)
    config.__dict__[_OWN] = module.config
    # The public setter would reach into configs that the copy shares with the original.
    setattr(config, _IMPLEMENTATION, _EXPERTS)
    return config


def own_experts(module: Any) -> Callable[..., Tensor]:
    """The function by which the module would run its experts without us: (module, hidden_states, chosen, weights)."""
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    name: Any = own_config(module.config)._experts_implementation
    return ALL_EXPERTS_FUNCTIONS.get_interface(name, type(module).forward.__wrapped__)


def expert_hidden(module: Any, expert: int, x: Tensor) -> Tensor:
    """One expert's hidden layer, after activation and gate: [row, width] -> [row, feature]."""
    name = "gate_up_proj" if module.has_gate else "up_proj"
    inner = _expert_linear(module, name, expert, x)
    return module._apply_gate(inner) if module.has_gate else module.act_fn(inner)


def expert_out(module: Any, expert: int, hidden: Tensor) -> Tensor:
    """One expert's output before its weight: [row, feature] -> [row, width]."""
    out = _expert_linear(module, "down_proj", expert, hidden)
    return module.post_expert_norm(out) if module.has_post_expert_norm else out


def _expert_linear(module: Any, name: str, expert: int, x: Tensor) -> Tensor:
    weight = getattr(module, name)[expert]
    out = x @ (weight if module.is_transposed else weight.mT)
    return out + getattr(module, f"{name}_bias")[expert] if module.has_bias else out


# Attention: modules ask their config by which name to look up the function that computes it.
ATTENTION = "optrode"
BAKED_ATTENTION = "optrode_baked"


def asks_config(module: nn.Module) -> bool:
    """Whether the module computes attention by a function that it looks up by its config."""
    config = module.__dict__.get("config")
    return hasattr(config, "_attn_implementation") and "ALL_ATTENTION_FUNCTIONS" in _names(module)


def _names(module: nn.Module) -> dict[str, Any]:
    """The names that the module's forward can see."""
    return inspect.unwrap(type(module).forward).__globals__


def register_attention(function: Callable[..., Any], name: str = ATTENTION) -> None:
    """Make `function` the one that is looked up by our name."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(name, function)


def renamed_config(config: Any) -> Any:
    """A shallow copy of a module's config with our name for the attention function; `own_config` gives the original."""
    renamed = copy.copy(config)
    # The public setter would also set the name in the configs that the copy shares with the original.
    renamed.__dict__["_attn_implementation_internal"] = ATTENTION
    renamed.__dict__[_OWN] = config
    return renamed


def baked_config(config: Any) -> Any:
    """A shallow copy of a module's config by which it calls the function that was registered for baked edits."""
    baked = copy.copy(config)
    baked.__dict__["_attn_implementation_internal"] = BAKED_ATTENTION
    return baked


def own_attention(module: Any) -> tuple[str, Callable[..., Any]]:
    """Name and function by which the module computes attention without us, whether its config is renamed or not."""
    name = own_config(module.config)._attn_implementation
    if name == ATTENTION:
        raise NotSupported("the attention implementation 'optrode' is no choice for a network: use sdpa or eager")
    if name == "eager" and getattr(module, "reorder_and_upcast_attn", False):
        # GPT-2 looks at the name itself before it chooses this one.
        return name, lambda _, query, key, value, mask, **options: module._upcast_and_reordered_attn(
            query, key, value, mask
        )
    names = _names(module)
    return name, names["ALL_ATTENTION_FUNCTIONS"].get_interface(name, names.get("eager_attention_forward"))
