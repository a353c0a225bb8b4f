"""DINOv2: the ViT block with a learned scale per feature on both parts, and a gated MLP in the largest model."""

from dataclasses import replace

from .base import Port
from .vit import LAYOUT as VIT
from .vit import PATCHES

_BLOCK = {
    **VIT.ports,
    "attn.in": Port("norm1", "out", "norm(in): what attention reads", PATCHES),
    "attn.out": Port("layer_scale1", "out", "attention part: scale * o_proj(heads)", PATCHES),
    "mid": Port("norm2", "in", "in + attn.out", PATCHES, adds_to="attn.out"),
    "mlp.in": Port("norm2", "out", "norm(mid): what the MLP reads", PATCHES),
    "mlp.out": Port("layer_scale2", "out", "MLP part: scale * fc2(hidden)", PATCHES),
}

PLAIN = replace(
    VIT,
    name="dinov2",
    model_types=("dinov2",),
    when={"use_swiglu_ffn": False},
    blocks="encoder.layer",
    ports=_BLOCK,
)

GATED = replace(
    PLAIN,
    when={"use_swiglu_ffn": True},
    ports={
        **{name: port for name, port in _BLOCK.items() if not name.startswith("mlp.") and name != "out"},
        "mlp.in": _BLOCK["mlp.in"],
        "mlp.gate": Port("mlp.gate_proj", "out", "gate before the activation function", PATCHES),
        "mlp.up": Port("mlp.up_proj", "out", "the other factor of the gated product", PATCHES),
        "mlp.hidden": Port("mlp.down_proj", "in", "act(gate) * up: the MLP's neurons", PATCHES),
        "mlp.out": Port("layer_scale2", "out", "MLP part: scale * down_proj(hidden)", PATCHES),
        "out": _BLOCK["out"],
    },
)

LAYOUT = replace(PLAIN, variants=(GATED,))
