"""Every name of transformers that is private or has changed between the supported releases, in one place.

`tests/engine/test_transformers_names.py` is the canary: it fails when a release moves one of them.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ..errors import NotSupported

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


# Fused experts: one module holds the weights of all of them and asks its config by which function to run.
_EXPERTS = "optrode"
_IMPLEMENTATION = "_experts_implementation_internal"
_OWN = "_optrode_own_experts"


def has_fused_experts(module: Any) -> bool:
    """Whether the module runs through transformers' interface for experts, with weights of the kind it describes."""
    wanted = ("config", "num_experts", "down_proj", "has_gate", "has_bias", "is_transposed", "has_post_expert_norm")
    return all(hasattr(module, name) for name in wanted) and hasattr(type(module).forward, "__wrapped__")


def experts_config(module: Any, run: Callable[..., Tensor]) -> Any:
    """A copy of the module's config by which its forward calls `run(module, hidden_states, chosen, weights)`."""
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    ALL_EXPERTS_FUNCTIONS.register(_EXPERTS, run)
    config: Any = copy.copy(module.config)
    setattr(config, _OWN, module.config._experts_implementation)
    # The public setter would reach into configs that the copy shares with the original.
    setattr(config, _IMPLEMENTATION, _EXPERTS)
    return config


def own_experts(module: Any) -> Callable[..., Tensor]:
    """The function by which the module would run its experts without us: (module, hidden_states, chosen, weights)."""
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    name: Any = getattr(module.config, _OWN, module.config._experts_implementation)
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


def asks_config(module: nn.Module) -> bool:
    """Whether the module computes attention by a function that it looks up by its config."""
    config = module.__dict__.get("config")
    return hasattr(config, "_attn_implementation") and "ALL_ATTENTION_FUNCTIONS" in _names(module)


def _names(module: nn.Module) -> dict[str, Any]:
    """The names that the module's forward can see."""
    return inspect.unwrap(type(module).forward).__globals__


def register_attention(function: Callable[..., Any]) -> None:
    """Make `function` the one that is looked up by our name."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(ATTENTION, function)


def renamed_config(config: Any) -> Any:
    """A shallow copy of a module's config with our name for the attention function; `optrode_own` is the original."""
    renamed = copy.copy(config)
    # The public setter would also set the name in the configs that the copy shares with the original.
    renamed.__dict__["_attn_implementation_internal"] = ATTENTION
    renamed.__dict__["optrode_own"] = config
    return renamed


def own_attention(module: Any) -> tuple[str, Callable[..., Any]]:
    """Name and function by which the module computes attention without us, whether its config is renamed or not."""
    name = module.config.__dict__.get("optrode_own", module.config)._attn_implementation
    if name == ATTENTION:
        raise NotSupported("the attention implementation 'optrode' is no choice for a network: use sdpa or eager")
    if name == "eager" and getattr(module, "reorder_and_upcast_attn", False):
        # GPT-2 looks at the name itself before it chooses this one.
        return name, lambda _, query, key, value, mask, **options: module._upcast_and_reordered_attn(
            query, key, value, mask
        )
    names = _names(module)
    return name, names["ALL_ATTENTION_FUNCTIONS"].get_interface(name, names.get("eager_attention_forward"))
