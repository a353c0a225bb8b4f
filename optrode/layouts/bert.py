"""BERT and RoBERTa: encoders with LayerNorm after each addition, so that the stream itself is normed."""

from .base import HEADS, VECTOR, Equation, Layout, Port, inside_attention

LAYOUT = Layout(
    name="bert",
    model_types=("bert", "roberta", "xlm-roberta"),
    blocks="encoder.layer",
    ports={
        "in": Port("", "in", "stream before the block; attention reads it as it is"),
        "attn.q": Port("attention.self.query", "out", "queries", HEADS, heads="query"),
        "attn.k": Port("attention.self.key", "out", "keys", HEADS, heads="query"),
        "attn.v": Port("attention.self.value", "out", "values", HEADS, heads="query"),
        **inside_attention("attention.self"),
        "attn.heads": Port("attention.output.dense", "in", "pattern @ v of each head", HEADS, heads="query"),
        "attn.out": Port("attention.output.dense", "out", "attention part before the norm that follows the addition"),
        "mid": Port("attention.output", "out", "norm(in + attn.out); the MLP reads it as it is"),
        "mlp.up": Port("intermediate.dense", "out", "MLP before the activation function"),
        "mlp.hidden": Port("output.dense", "in", "act(up): the MLP's neurons"),
        "mlp.out": Port("output.dense", "out", "MLP part before the norm that follows the addition"),
        "out": Port("", "out", "norm(mid + mlp.out)"),
    },
    outer_before={"embed": Port("embeddings", "out", "norm(token + position + segment embeddings)")},
    outer_after={"pooled": Port("pooler", "out", "tanh(dense(first token))", VECTOR)},
    equations=(
        Equation("mid", ("in", "attn.out"), norm="attention.output.LayerNorm"),
        Equation("out", ("mid", "mlp.out"), norm="output.LayerNorm"),
    ),
    causal=False,
)
