"""DistilBERT: the BERT block under other names, without segment embeddings and pooler."""

from .base import HEADS, Equation, Layout, Port, inside_attention

LAYOUT = Layout(
    name="distilbert",
    model_types=("distilbert",),
    blocks="transformer.layer",
    ports={
        "in": Port("", "in", "stream before the block; attention reads it as it is"),
        "attn.q": Port("attention.q_lin", "out", "queries", HEADS, heads="query"),
        "attn.k": Port("attention.k_lin", "out", "keys", HEADS, heads="query"),
        "attn.v": Port("attention.v_lin", "out", "values", HEADS, heads="query"),
        **inside_attention("attention"),
        "attn.heads": Port("attention.out_lin", "in", "pattern @ v of each head", HEADS, heads="query"),
        "attn.out": Port("attention", "out", "attention part before the norm that follows the addition"),
        "mid": Port("sa_layer_norm", "out", "norm(in + attn.out); the MLP reads it as it is"),
        "mlp.up": Port("ffn.lin1", "out", "MLP before the activation function"),
        "mlp.hidden": Port("ffn.lin2", "in", "act(up): the MLP's neurons"),
        "mlp.out": Port("ffn", "out", "MLP part before the norm that follows the addition"),
        "out": Port("", "out", "norm(mid + mlp.out)"),
    },
    outer_before={"embed": Port("embeddings", "out", "norm(token + position embeddings)")},
    equations=(
        Equation("mid", ("in", "attn.out"), norm="sa_layer_norm"),
        Equation("out", ("mid", "mlp.out"), norm="output_layer_norm"),
    ),
    causal=False,
)
