"""Statistics of activations: streaming accumulators, which tokens count, which values are massive."""

from .accumulator import Accumulator
from .count import Count
from .covariance import Covariance, CrossMoments
from .extremes import Extremes
from .histogram import Histogram, Magnitudes, log_edges
from .massive import (
    ABSOLUTE_THRESHOLD,
    RELATIVE_THRESHOLD,
    Massive,
    find_massive,
    largest_and_median,
    massive_by_layer,
    stream_norms,
)
from .moments import Moments
from .norms import Norms
from .quantiles import Quantiles
from .sign_counts import SignCounts
from .token_mask import SINK_FACTOR, sink_mask, token_mask
from .top import Top

__all__ = [
    "ABSOLUTE_THRESHOLD", "RELATIVE_THRESHOLD", "SINK_FACTOR", "Accumulator", "Count", "Covariance", "CrossMoments",
    "Extremes", "Histogram", "Magnitudes", "Massive", "Moments", "Norms", "Quantiles", "SignCounts", "Top",
    "find_massive", "largest_and_median", "log_edges", "massive_by_layer", "sink_mask", "stream_norms", "token_mask",
]  # fmt: skip
