"""Edits as part of a network: `bake` gives a network to compile, export or serve, `fold` a plain checkpoint.

A live edit (`model.edited`) is a hook that looks up its context, which no compiler follows. A baked one is a small
module in the graph, with its tensors as buffers. The new network is of the host's own class and shares its weights.
"""

from __future__ import annotations

from .bake import bake
from .checkpoint import fold
from .top import explain, is_baked

__all__ = ["bake", "explain", "fold", "is_baked"]
