"""Gemma 3 (text): the Gemma 2 block with a norm on each query and key head before rotation."""

from dataclasses import replace

from .base import HEADS, Port
from .gemma2 import BLOCK
from .gemma2 import LAYOUT as GEMMA2

LAYOUT = replace(
    GEMMA2,
    name="gemma3",
    model_types=("gemma3_text",),
    ports={
        **BLOCK,
        "attn.q": Port(
            "self_attn.q_norm", "out", "norm(queries) before rotation", HEADS, headed=True, heads_first=True
        ),
        "attn.k": Port("self_attn.k_norm", "out", "norm(keys) before rotation", HEADS, headed=True, heads_first=True),
    },
)
