"""Gemma 2: the Llama block with a second norm on what attention and MLP give, before it is added; capped logits."""

from dataclasses import replace

from .base import Port
from .llama import BLOCK as LLAMA_BLOCK
from .llama import LAYOUT as LLAMA

BLOCK = {
    **LLAMA_BLOCK,
    "attn.out": Port("post_attention_layernorm", "out", "attention part: norm(o_proj(heads))"),
    "mid": Port("pre_feedforward_layernorm", "in", "in + attn.out", adds_to="attn.out"),
    "mlp.in": Port("pre_feedforward_layernorm", "out", "norm(mid): what the MLP reads"),
    "mlp.out": Port("post_feedforward_layernorm", "out", "MLP part: norm(down_proj(hidden))"),
}

LAYOUT = replace(
    LLAMA,
    name="gemma2",
    model_types=("gemma2",),
    ports=BLOCK,
    outer_before={"embed": Port("embed_tokens", "out", "token embeddings times sqrt(width)")},
    head=Port("", "out", "logits over the vocabulary, capped"),
)
