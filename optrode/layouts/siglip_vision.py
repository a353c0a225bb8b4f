"""SigLIP's image encoder: the CLIP block without class token; a query that is learned pools the patches."""

from dataclasses import replace

from .base import VECTOR, Port
from .clip_vision import LAYOUT as CLIP
from .vit import PATCHES

LAYOUT = replace(
    CLIP,
    name="siglip_vision",
    model_types=("siglip_vision_model",),
    outer_before={"embed": Port("embeddings", "out", "patch plus position embeddings", PATCHES)},
    outer_after={
        "final": Port("post_layernorm", "out", "norm(last out)", PATCHES),
        "pooled": Port("head", "out", "final, pooled by attention of one learned query", VECTOR),
    },
)
