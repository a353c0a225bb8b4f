"""LLaVA: pictures as tokens among those of a Llama-like decoder; the sites are the decoder's.

The image encoder is read by module path. The tokens that stand for patches have the role `image`.
"""

from dataclasses import replace

from .base import Port
from .llama import LAYOUT as LLAMA

LAYOUT = replace(
    LLAMA,
    name="llava",
    model_types=("llava",),
    blocks="language_model.layers",
    outer_before={"embed": Port("language_model.embed_tokens", "out", "token embeddings before pictures are put in")},
    outer_after={"final": Port("language_model.norm", "out", "norm(last out): what the head reads")},
)
