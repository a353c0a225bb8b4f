"""CLIP's image encoder: the ViT block under other names, with a norm before the first block."""

from .base import VECTOR, Equation, Layout, Port, inside_attention
from .vit import PATCH_HEADS, PATCHES


def block(stream: tuple[str, ...], heads: tuple[str, ...]) -> dict[str, Port]:
    """The block that CLIP and SigLIP have in both of their encoders; `stream` and `heads` are its axes."""
    return {
        "in": Port("", "in", "stream before the block", stream),
        "attn.in": Port("layer_norm1", "out", "norm(in): what attention reads", stream),
        "attn.q": Port("self_attn.q_proj", "out", "queries", heads, heads="query"),
        "attn.k": Port("self_attn.k_proj", "out", "keys", heads, heads="query"),
        "attn.v": Port("self_attn.v_proj", "out", "values", heads, heads="query"),
        **inside_attention("self_attn", stream[1]),
        "attn.heads": Port("self_attn.out_proj", "in", "pattern @ v of each head", heads, heads="query"),
        "attn.out": Port("self_attn", "out", "attention part: out_proj(heads)", stream),
        "mid": Port("layer_norm2", "in", "in + attn.out", stream, adds_to="attn.out"),
        "mlp.in": Port("layer_norm2", "out", "norm(mid): what the MLP reads", stream),
        "mlp.up": Port("mlp.fc1", "out", "MLP before the activation function", stream),
        "mlp.hidden": Port("mlp.fc2", "in", "act(up): the MLP's neurons", stream),
        "mlp.out": Port("mlp", "out", "MLP part: fc2(hidden)", stream),
        "out": Port("", "out", "mid + mlp.out", stream),
    }


LAYOUT = Layout(
    name="clip_vision",
    model_types=("clip_vision_model",),
    blocks="encoder.layers",
    ports=block(PATCHES, PATCH_HEADS),
    outer_before={"embed": Port("pre_layrnorm", "out", "norm(patch plus position embeddings), class first", PATCHES)},
    outer_after={"pooled": Port("post_layernorm", "out", "norm(last out at the class token)", VECTOR)},
    equations=(Equation("mid", ("in", "attn.out")), Equation("out", ("mid", "mlp.out"))),
    causal=False,
)
