"""ModernBERT: an encoder with LayerNorm before each part, rotary positions and a gated MLP, all projections fused."""

from .base import HEADS, Equation, Layout, Port, inside_attention


def _fused(index: int, says: str) -> Port:
    return Port("attn.Wqkv", "out", says, HEADS, part=(index, 3), heads="query")


LAYOUT = Layout(
    name="modernbert",
    model_types=("modernbert",),
    blocks="layers",
    ports={
        "in": Port("", "in", "stream before the block"),
        "attn.in": Port("attn_norm", "out", "norm(in), in the first block in itself: what attention reads"),
        "attn.q": _fused(0, "queries before rotation"),
        "attn.k": _fused(1, "keys before rotation"),
        "attn.v": _fused(2, "values"),
        **inside_attention("attn"),
        "attn.heads": Port("attn.Wo", "in", "pattern @ v of each head", HEADS, heads="query"),
        "attn.out": Port("attn", "out", "attention part: Wo(heads)"),
        "mid": Port("mlp_norm", "in", "in + attn.out", adds_to="attn.out"),
        "mlp.in": Port("mlp_norm", "out", "norm(mid): what the MLP reads"),
        "mlp.gate": Port("mlp.Wi", "out", "gate before the activation function", part=(0, 2)),
        "mlp.up": Port("mlp.Wi", "out", "the other factor of the gated product", part=(1, 2)),
        "mlp.hidden": Port("mlp.Wo", "in", "act(gate) * up: the MLP's neurons"),
        "mlp.out": Port("mlp", "out", "MLP part: Wo(hidden)"),
        "out": Port("", "out", "mid + mlp.out"),
    },
    outer_before={"embed": Port("embeddings", "out", "norm(token embeddings)")},
    outer_after={"final": Port("final_norm", "out", "norm(last out): what the head reads")},
    head=Port("decoder", "out", "logits over the vocabulary"),
    equations=(Equation("mid", ("in", "attn.out")), Equation("out", ("mid", "mlp.out"))),
    causal=False,
)
