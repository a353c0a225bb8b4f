"""Optimal transport in one dimension, coordinate by coordinate: maps from one set of activations to another.

In one dimension the best pairing of two samples of equal size is by rank, so that sorting is all there is to it. What a
map gives is an edit: `weight * h + bias`, elementwise, everywhere or within the range that it was fitted on.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..edits import SiteEdit, affine, affine_within
from ..errors import BadInput, did_you_mean

MAPS = ("linear", "gaussian", "mean")
# Coordinates whose deviation is no larger are left alone: a slope would be a quotient of two roundings.
LEAST_DEVIATION = 1e-4


@dataclass(frozen=True, eq=False)
class TransportMap:
    """weight * h + bias, both [width]; only where low < h < high if there are bounds."""

    weight: Tensor
    bias: Tensor
    low: Tensor | None = None
    high: Tensor | None = None

    def edit(self, site: str, positions: str = "all") -> SiteEdit:
        """The map as an edit at one site."""
        if self.low is None or self.high is None:
            return affine(site, self.weight, self.bias, positions)
        return affine_within(site, self.weight, self.bias, self.low, self.high, positions)


def fit_map(source: Tensor, target: Tensor, kind: str = "linear") -> TransportMap:
    """The map of one kind from rows [example, width] to equally many others (arXiv 2410.23054, section 3).

    `linear`: least squares of the sorted target on the sorted source, within the source's range; a coordinate that is
    constant in the source is left alone. `gaussian` and `mean`: from means and deviations, everywhere; a coordinate
    that hardly varies in either set is left alone. Computed in float64. Raises `BadInput`.
    """
    if kind not in MAPS:
        raise BadInput(f"map '{kind}' is not known: {did_you_mean(kind, MAPS)}")
    if source.shape != target.shape or len(source) < 2:
        raise BadInput(
            f"a transport map needs as many source as target examples, two at least: got {len(source)} and "
            f"{len(target)}"
        )
    x, y = source.double(), target.double()
    mean_x, mean_y = x.mean(0), y.mean(0)
    if kind == "linear":
        low, high = x.min(0).values, x.max(0).values
        ranked_x, ranked_y = x.sort(0).values - mean_x, y.sort(0).values - mean_y
        spread = ranked_x.square().sum(0)
        known = high > low
        weight = torch.where(known, (ranked_x * ranked_y).sum(0) / spread.clamp(min=1e-300), torch.ones_like(spread))
        bias = torch.where(known, mean_y - weight * mean_x, torch.zeros_like(spread))
        return TransportMap(weight.float(), bias.float(), low.float(), high.float())
    known = (x.std(0) > LEAST_DEVIATION) & (y.std(0) > LEAST_DEVIATION)
    ratio = y.std(0) / x.std(0) if kind == "gaussian" else torch.ones_like(mean_x)
    weight = torch.where(known, ratio, torch.ones_like(ratio))
    bias = torch.where(known, mean_y - weight * mean_x, torch.zeros_like(ratio))
    return TransportMap(weight.float(), bias.float())


def sorted_distance(source: Tensor, target: Tensor) -> Tensor:
    """Squared Wasserstein-2 distance of each coordinate between two sets of equal size, [example, width] -> [width].

    Mean over ranks of (sorted source - sorted target)^2; differentiable. Two samples of one law are not at distance 0.
    """
    if source.shape != target.shape:
        raise BadInput(
            f"sets of equal size can be compared by rank: got {tuple(source.shape)} and {tuple(target.shape)}"
        )
    return (source.sort(0).values - target.sort(0).values).square().mean(0)
