"""OPT: LayerNorm before each part (in OPT-350m after each addition), learned positions; its MLP sees flat rows."""

from dataclasses import replace

from .base import HEADS, Equation, Layout, Port, inside_attention

_ATTENTION = {
    "attn.q": Port("self_attn.q_proj", "out", "queries", HEADS, heads="query"),
    "attn.k": Port("self_attn.k_proj", "out", "keys", HEADS, heads="query"),
    "attn.v": Port("self_attn.v_proj", "out", "values", HEADS, heads="query"),
    **inside_attention("self_attn"),
    "attn.heads": Port("self_attn.out_proj", "in", "pattern @ v of each head", HEADS, heads="query"),
}
_MLP = {
    "mlp.up": Port("fc1", "out", "MLP before the activation function", flat=True),
    "mlp.hidden": Port("fc2", "in", "act(up): the MLP's neurons", flat=True),
}

NORM_BEFORE = Layout(
    name="opt",
    model_types=("opt",),
    when={"do_layer_norm_before": True},
    blocks="decoder.layers",
    # With a head, transformers calls the decoder itself.
    entry="decoder",
    ports={
        "in": Port("", "in", "stream before the block"),
        "attn.in": Port("self_attn_layer_norm", "out", "norm(in): what attention reads"),
        **_ATTENTION,
        "attn.out": Port("self_attn", "out", "attention part: out_proj(heads)"),
        "mid": Port("final_layer_norm", "in", "in + attn.out", flat=True, adds_to="attn.out"),
        "mlp.in": Port("final_layer_norm", "out", "norm(mid): what the MLP reads", flat=True),
        **_MLP,
        "mlp.out": Port("fc2", "out", "MLP part: fc2(hidden)", flat=True),
        "out": Port("", "out", "mid + mlp.out"),
    },
    outer_before={"embed": Port("decoder.embed_tokens", "out", "token embeddings before the positions are added")},
    outer_after={"final": Port("decoder.final_layer_norm", "out", "norm(last out): what the head reads")},
    head=Port("lm_head", "out", "logits over the vocabulary"),
    equations=(Equation("mid", ("in", "attn.out")), Equation("out", ("mid", "mlp.out"))),
)

NORM_AFTER = replace(
    NORM_BEFORE,
    when={"do_layer_norm_before": False},
    ports={
        "in": Port("", "in", "stream before the block; attention reads it as it is"),
        **_ATTENTION,
        "attn.out": Port("self_attn", "out", "attention part before the norm that follows the addition"),
        "mid": Port("self_attn_layer_norm", "out", "norm(in + attn.out); the MLP reads it as it is"),
        **_MLP,
        "mlp.out": Port("fc2", "out", "MLP part before the norm that follows the addition", flat=True),
        "out": Port("", "out", "norm(mid + mlp.out)"),
    },
    outer_after={},
    equations=(
        Equation("mid", ("in", "attn.out"), norm="self_attn_layer_norm"),
        Equation("out", ("mid", "mlp.out"), norm="final_layer_norm"),
    ),
)

LAYOUT = replace(NORM_BEFORE, variants=(NORM_AFTER,))
