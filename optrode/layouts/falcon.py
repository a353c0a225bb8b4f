"""Falcon: attention and MLP read the same stream side by side (one norm or two); one, some or all heads have keys.

The variant with the two one after the other has a `mid`.
"""

from dataclasses import replace

from .base import HEADS, Equation, Layout, Port


def _fused(index: int, says: str, heads: str) -> Port:
    return Port("self_attention.query_key_value", "out", says, HEADS, part=(index, 3), packing="groups", heads=heads)


_MANY_KEYS = Layout(
    name="falcon",
    model_types=("falcon",),
    blocks="h",
    key_heads="num_kv_heads",
    ports={
        "in": Port("", "in", "stream before the block"),
        "attn.in": Port("self_attention", "in", "norm(in): what attention reads"),
        "attn.q": _fused(0, "queries before rotation", "query"),
        "attn.k": _fused(1, "keys before rotation", "key"),
        "attn.v": _fused(2, "values", "key"),
        "attn.heads": Port("self_attention.dense", "in", "pattern @ v of each query head", HEADS, heads="query"),
        "attn.out": Port("self_attention", "out", "attention part: dense(heads)"),
        "mid": Port("post_attention_layernorm", "in", "in + attn.out", adds_to="attn.out"),
        "mlp.in": Port("mlp", "in", "norm(in), or norm(mid) where there is a mid: what the MLP reads"),
        "mlp.up": Port("mlp.dense_h_to_4h", "out", "MLP before the activation function"),
        "mlp.hidden": Port("mlp.dense_4h_to_h", "in", "act(up): the MLP's neurons"),
        "mlp.out": Port("mlp.dense_4h_to_h", "out", "MLP part: dense_4h_to_h(hidden)"),
        "out": Port("", "out", "in + attn.out + mlp.out"),
    },
    outer_before={"embed": Port("word_embeddings", "out", "token embeddings")},
    outer_after={"final": Port("ln_f", "out", "norm(last out): what the head reads")},
    head=Port("lm_head", "out", "logits over the vocabulary"),
    equations=(Equation("mid", ("in", "attn.out")), Equation("out", ("in", "attn.out", "mlp.out"))),
)

_ONE_KEY = replace(_MANY_KEYS, key_heads=1, when={"new_decoder_architecture": False, "multi_query": True})

LAYOUT = replace(_ONE_KEY, variants=(_MANY_KEYS,))
