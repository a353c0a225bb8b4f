"""Phi 3: the Llama block with fused projections, one for q, k and v and one for the gate and the other factor."""

from dataclasses import replace

from .base import HEADS, Port
from .llama import BLOCK
from .llama import LAYOUT as LLAMA


def _fused(index: int, says: str, heads: str) -> Port:
    return Port("self_attn.qkv_proj", "out", says, HEADS, part=(index, 3), packing="heads", heads=heads)


LAYOUT = replace(
    LLAMA,
    name="phi3",
    model_types=("phi3",),
    ports={
        **BLOCK,
        "attn.q": _fused(0, "queries before rotation", "query"),
        "attn.k": _fused(1, "keys before rotation", "key"),
        "attn.v": _fused(2, "values", "key"),
        "mlp.gate": Port("mlp.gate_up_proj", "out", "gate before the activation function", part=(0, 2)),
        "mlp.up": Port("mlp.gate_up_proj", "out", "the other factor of the gated product", part=(1, 2)),
    },
)
