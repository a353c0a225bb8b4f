"""Statistics of activations: which tokens count, which values are massive, how large the stream is."""

from .extremes import (
    ABSOLUTE_THRESHOLD,
    RELATIVE_THRESHOLD,
    Massive,
    find_massive,
    largest_and_median,
    massive_by_layer,
    stream_norms,
)
from .token_mask import SINK_FACTOR, sink_mask, token_mask

__all__ = [
    "ABSOLUTE_THRESHOLD", "RELATIVE_THRESHOLD", "SINK_FACTOR", "Massive", "find_massive", "largest_and_median",
    "massive_by_layer", "sink_mask", "stream_norms", "token_mask",
]  # fmt: skip
