"""GPT-2: LayerNorm before each part, learned positions, one fused q-k-v projection."""

from .base import HEADS, Equation, Layout, Port, inside_attention

LAYOUT = Layout(
    name="gpt2",
    model_types=("gpt2",),
    blocks="h",
    ports={
        "in": Port("", "in", "stream before the block"),
        "attn.in": Port("ln_1", "out", "norm(in): what attention reads"),
        "attn.q": Port("attn.c_attn", "out", "queries", HEADS, part=(0, 3), heads="query"),
        "attn.k": Port("attn.c_attn", "out", "keys", HEADS, part=(1, 3), heads="query"),
        "attn.v": Port("attn.c_attn", "out", "values", HEADS, part=(2, 3), heads="query"),
        **inside_attention("attn"),
        "attn.heads": Port("attn.c_proj", "in", "pattern @ v of each head", HEADS, heads="query"),
        "attn.out": Port("attn", "out", "attention part: c_proj(heads)"),
        "mid": Port("ln_2", "in", "in + attn.out", adds_to="attn.out"),
        "mlp.in": Port("ln_2", "out", "norm(mid): what the MLP reads"),
        "mlp.up": Port("mlp.c_fc", "out", "MLP before the activation function"),
        "mlp.hidden": Port("mlp.c_proj", "in", "act(up): the MLP's neurons"),
        "mlp.out": Port("mlp", "out", "MLP part: c_proj(hidden)"),
        "out": Port("", "out", "mid + mlp.out"),
    },
    outer_before={"embed": Port("drop", "out", "token plus position embeddings")},
    outer_after={"final": Port("ln_f", "out", "norm(last out): what the head reads")},
    head=Port("lm_head", "out", "logits over the vocabulary"),
    equations=(Equation("mid", ("in", "attn.out")), Equation("out", ("mid", "mlp.out"))),
)
