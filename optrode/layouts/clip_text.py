"""CLIP's text encoder: a causal encoder with LayerNorm before each part and learned positions."""

from dataclasses import replace

from .base import HEADS, TOKENS, Port
from .clip_vision import LAYOUT as VISION
from .clip_vision import block

LAYOUT = replace(
    VISION,
    name="clip_text",
    model_types=("clip_text_model",),
    ports=block(TOKENS, HEADS),
    outer_before={"embed": Port("embeddings", "out", "token plus position embeddings")},
    outer_after={"final": Port("final_layer_norm", "out", "norm(last out)")},
    causal=True,
)
