"""Networks of several towers: which parts are networks of their own, and what the addresses of their sites begin with.

| network | its own `layers.*` | with a prefix |
|---|---|---|
| pictures and texts side by side (CLIP, SigLIP) | none | `vision.`, `text.` |
| a language model that sees (LLaVA and its relatives) | the language model | `vision.` |
| encoder and decoder (T5) | none | `encoder.`, `decoder.` |
"""

from __future__ import annotations

from typing import Any

# Where a tower may be below the base network, in order of execution -> what its addresses begin with.
PREFIXES = {
    "vision_model": "vision",
    "vision_tower": "vision",
    "visual": "vision",
    "text_model": "text",
    "language_model": "text",
    "encoder": "encoder",
    "decoder": "decoder",
}
DECODER = "decoder"


def tower_modules(base: Any, config: Any) -> list[str]:
    """Names of the towers of an encoder-decoder or an image-text network, below its base; none for other networks."""
    if getattr(config, "is_encoder_decoder", False):
        names = [name for name in PREFIXES if name in ("encoder", "decoder")]
    elif hasattr(config, "vision_config") and hasattr(config, "text_config"):
        names = [name for name in PREFIXES if name not in ("encoder", "decoder")]
    else:
        names = []
    found = [name for name in names if hasattr(base, name)]
    return found if len(found) > 1 else []


def side_by_side(base: Any) -> bool:
    """Whether the towers see nothing of each other: their last vectors are compared, on a scale that was learned."""
    return hasattr(base, "logit_scale")


def language_tower(base: Any, config: Any) -> str | None:
    """The tower that takes in what the others give and writes text: its sites are those of the network itself."""
    if getattr(config, "is_encoder_decoder", False) or side_by_side(base):
        return None
    return next((name for name in tower_modules(base, config) if PREFIXES[name] == "text"), None)


def prefixed(base: Any, config: Any) -> dict[str, str]:
    """Prefix -> module name of each tower whose addresses have one, in order of execution."""
    own = language_tower(base, config)
    return {PREFIXES[name]: name for name in tower_modules(base, config) if name != own}
