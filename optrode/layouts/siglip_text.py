"""SigLIP's text encoder: the CLIP block, looking both ways; the last token is the sentence."""

from dataclasses import replace

from .base import VECTOR, Port
from .clip_text import LAYOUT as CLIP

LAYOUT = replace(
    CLIP,
    name="siglip_text",
    model_types=("siglip_text_model",),
    outer_after={
        "final": Port("final_layer_norm", "out", "norm(last out)"),
        "pooled": Port("head", "out", "linear(final at the last token)", VECTOR),
    },
    causal=False,
)
