"""Granite: the Llama block with fixed multipliers on the embeddings, on both parts of a block and on the logits."""

from dataclasses import replace

from .base import Equation, Port
from .llama import BLOCK
from .llama import LAYOUT as LLAMA

LAYOUT = replace(
    LLAMA,
    name="granite",
    model_types=("granite",),
    ports={
        **BLOCK,
        "attn.out": Port("self_attn", "out", "attention part before the residual multiplier: o_proj(heads)"),
        "mid": Port("post_attention_layernorm", "in", "in + residual_multiplier * attn.out", adds_to="attn.out"),
        "mlp.out": Port("mlp", "out", "MLP part before the residual multiplier: down_proj(hidden)"),
        "out": Port("", "out", "mid + residual_multiplier * mlp.out"),
    },
    outer_before={"embed": Port("embed_tokens", "out", "token embeddings before the embedding multiplier")},
    head=Port("", "out", "logits over the vocabulary, scaled"),
    equations=(
        Equation("mid", ("in", "attn.out"), scale={"attn.out": "residual_multiplier"}),
        Equation("out", ("mid", "mlp.out"), scale={"mlp.out": "residual_multiplier"}),
    ),
)
