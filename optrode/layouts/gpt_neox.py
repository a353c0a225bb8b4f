"""GPT-NeoX and Pythia: attention and MLP read the same stream side by side; a variant has them one after the other."""

from dataclasses import replace

from .base import HEADS, Equation, Layout, Port, inside_attention


def _fused(index: int, says: str) -> Port:
    return Port("attention.query_key_value", "out", says, HEADS, part=(index, 3), packing="groups", heads="query")


_ATTENTION = {
    "in": Port("", "in", "stream before the block"),
    "attn.in": Port("input_layernorm", "out", "norm(in): what attention reads"),
    "attn.q": _fused(0, "queries before rotation"),
    "attn.k": _fused(1, "keys before rotation"),
    "attn.v": _fused(2, "values"),
    **inside_attention("attention"),
    "attn.heads": Port("attention.dense", "in", "pattern @ v of each head", HEADS, heads="query"),
    "attn.out": Port("attention", "out", "attention part: dense(heads)"),
}
_MLP = {
    "mlp.up": Port("mlp.dense_h_to_4h", "out", "MLP before the activation function"),
    "mlp.hidden": Port("mlp.dense_4h_to_h", "in", "act(up): the MLP's neurons"),
    "mlp.out": Port("mlp", "out", "MLP part: dense_4h_to_h(hidden)"),
}

PARALLEL = Layout(
    name="gpt_neox",
    model_types=("gpt_neox",),
    when={"use_parallel_residual": True},
    blocks="layers",
    ports={
        **_ATTENTION,
        "mlp.in": Port("post_attention_layernorm", "out", "another norm(in): what the MLP reads"),
        **_MLP,
        "out": Port("", "out", "in + attn.out + mlp.out"),
    },
    outer_before={"embed": Port("embed_in", "out", "token embeddings")},
    outer_after={"final": Port("final_layer_norm", "out", "norm(last out): what the head reads")},
    head=Port("lm_head", "out", "logits over the vocabulary"),
    equations=(Equation("out", ("in", "attn.out", "mlp.out")),),
)

SEQUENTIAL = replace(
    PARALLEL,
    when={"use_parallel_residual": False},
    ports={
        **_ATTENTION,
        "mid": Port("post_attention_layernorm", "in", "in + attn.out", adds_to="attn.out"),
        "mlp.in": Port("post_attention_layernorm", "out", "norm(mid): what the MLP reads"),
        **_MLP,
        "out": Port("", "out", "mid + mlp.out"),
    },
    equations=(Equation("mid", ("in", "attn.out")), Equation("out", ("mid", "mlp.out"))),
)

LAYOUT = replace(PARALLEL, variants=(SEQUENTIAL,))
