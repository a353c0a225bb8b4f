"""ViT: an encoder of image patches; position 0 is the class token, the others are patches row by row."""

from .base import VECTOR, Equation, Layout, Port, inside_attention

PATCHES = ("example", "patch", "feature")
PATCH_HEADS = ("example", "patch", "head", "feature")

LAYOUT = Layout(
    name="vit",
    model_types=("vit",),
    blocks="layers",
    ports={
        "in": Port("", "in", "stream before the block", PATCHES),
        "attn.in": Port("layernorm_before", "out", "norm(in): what attention reads", PATCHES),
        "attn.q": Port("attention.q_proj", "out", "queries", PATCH_HEADS, heads="query"),
        "attn.k": Port("attention.k_proj", "out", "keys", PATCH_HEADS, heads="query"),
        "attn.v": Port("attention.v_proj", "out", "values", PATCH_HEADS, heads="query"),
        **inside_attention("attention", "patch"),
        "attn.heads": Port("attention.o_proj", "in", "pattern @ v of each head", PATCH_HEADS, heads="query"),
        "attn.out": Port("attention", "out", "attention part: o_proj(heads)", PATCHES),
        "mid": Port("layernorm_after", "in", "in + attn.out", PATCHES, adds_to="attn.out"),
        "mlp.in": Port("layernorm_after", "out", "norm(mid): what the MLP reads", PATCHES),
        "mlp.up": Port("mlp.fc1", "out", "MLP before the activation function", PATCHES),
        "mlp.hidden": Port("mlp.fc2", "in", "act(up): the MLP's neurons", PATCHES),
        "mlp.out": Port("mlp", "out", "MLP part: fc2(hidden)", PATCHES),
        "out": Port("", "out", "mid + mlp.out", PATCHES),
    },
    outer_before={"embed": Port("embeddings", "out", "patch plus position embeddings, class token first", PATCHES)},
    outer_after={"final": Port("layernorm", "out", "norm(last out): what the head reads", PATCHES)},
    head=Port("classifier", "out", "logits over the classes", VECTOR),
    equations=(Equation("mid", ("in", "attn.out")), Equation("out", ("mid", "mlp.out"))),
    causal=False,
)
