"""BLOOM: LayerNorm before each part, ALiBi; attention and MLP modules add the stream themselves."""

from .base import HEADS, Equation, Layout, Port


def _fused(index: int, says: str) -> Port:
    return Port("self_attention.query_key_value", "out", says, HEADS, part=(index, 3), packing="groups", heads="query")


LAYOUT = Layout(
    name="bloom",
    model_types=("bloom",),
    # Otherwise the norm is added instead of the stream, or the output projections are not called as modules.
    when={"apply_residual_connection_post_layernorm": False, "slow_but_exact": False},
    blocks="h",
    ports={
        "in": Port("", "in", "stream before the block"),
        "attn.in": Port("input_layernorm", "out", "norm(in): what attention reads"),
        "attn.q": _fused(0, "queries"),
        "attn.k": _fused(1, "keys"),
        "attn.v": _fused(2, "values"),
        "attn.heads": Port("self_attention.dense", "in", "pattern @ v of each head", HEADS, heads="query"),
        "attn.out": Port("self_attention.dense", "out", "attention part: dense(heads)"),
        "mid": Port("post_attention_layernorm", "in", "in + attn.out", adds_to="attn.out"),
        "mlp.in": Port("post_attention_layernorm", "out", "norm(mid): what the MLP reads"),
        "mlp.up": Port("mlp.dense_h_to_4h", "out", "MLP before the activation function"),
        "mlp.hidden": Port("mlp.dense_4h_to_h", "in", "act(up): the MLP's neurons"),
        "mlp.out": Port("mlp.dense_4h_to_h", "out", "MLP part: dense_4h_to_h(hidden)"),
        "out": Port("", "out", "mid + mlp.out"),
    },
    outer_before={"embed": Port("word_embeddings_layernorm", "out", "norm(token embeddings)")},
    outer_after={"final": Port("ln_f", "out", "norm(last out): what the head reads")},
    head=Port("lm_head", "out", "logits over the vocabulary"),
    equations=(Equation("mid", ("in", "attn.out")), Equation("out", ("mid", "mlp.out"))),
)
