"""Qwen 3: the Llama block with a norm on each query and key head before rotation."""

from dataclasses import replace

from .base import HEADS, Port
from .llama import BLOCK
from .llama import LAYOUT as LLAMA

LAYOUT = replace(
    LLAMA,
    name="qwen3",
    model_types=("qwen3",),
    ports={
        **BLOCK,
        "attn.q": Port("self_attn.q_norm", "out", "norm(queries) before rotation", HEADS, headed=True),
        "attn.k": Port("self_attn.k_norm", "out", "norm(keys) before rotation", HEADS, headed=True),
    },
)
