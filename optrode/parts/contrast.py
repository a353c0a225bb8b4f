"""Activations of contrast pairs at many sites, read once and shared by every direction estimator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import BadInput, NotFinite
from ..model import Model
from ..stats import stream_norms, token_mask

# Conversations whose tokens give the median norm of the stream: more change it by little.
NORM_SAMPLE = 16


@dataclass(frozen=True)
class Contrast:
    """Rows that show a behaviour and rows that oppose it, pair by pair.

    `positive` and `negative` by site: [pair, width] float32. `norm` by site: median norm of the stream there, padding,
    special and sink tokens left out; it is the unit that strengths are given in. `groups`: one name per pair.
    """

    positive: dict[str, Tensor]
    negative: dict[str, Tensor]
    norm: dict[str, float]
    groups: tuple[str, ...]

    def at(self, site: str) -> tuple[Tensor, Tensor]:
        """The rows of one site, positive and negative."""
        return self.positive[site], self.negative[site]

    def shuffled(self, seed: int) -> Contrast:
        """A control: within each pair the labels are swapped at random."""
        count = len(self.groups)
        swap = torch.rand(count, generator=torch.Generator().manual_seed(seed)) < 0.5
        pick = swap[:, None]
        positive = {site: torch.where(pick, self.negative[site], value) for site, value in self.positive.items()}
        negative = {site: torch.where(pick, self.positive[site], value) for site, value in self.negative.items()}
        return Contrast(positive, negative, self.norm, self.groups)


def read_contrast(
    model: Model,
    positive: Sequence[Any],
    negative: Sequence[Any],
    sites: str | Sequence[str],
    *,
    groups: Sequence[str] | None = None,
    positions: str = "last_prompt",
    reduce: str | None = None,
    template: str | None = None,
) -> Contrast:
    """Read both sides of a contrast at one token per conversation (by default the last).

    With `reduce`, such as `mean`, the selected tokens of a conversation become one row.

    `positive` and `negative` are prompts, text or messages, of equal number. Raises `BadInput` when one side is empty
    or they differ in number, `NotFinite` when an activation is no number.
    """
    if not positive or not negative:
        side = "positive" if not positive else "negative"
        raise BadInput(f"the {side} class is empty: a contrast needs examples of both")
    if len(positive) != len(negative):
        raise BadInput(f"{len(positive)} positive and {len(negative)} negative examples: pairs need equal numbers")
    both = [*positive, *negative]
    acts = model.read(both, sites, positions=positions, reduce=reduce, template=template)
    for site, value in acts.items():
        if not bool(torch.isfinite(value).all()):
            raise NotFinite(f"the activations at {site} hold NaN or infinity: use float32, or check the inputs")
        if len(value) != len(both):
            raise BadInput(
                f"positions '{positions}' select {len(value)} tokens in {len(both)} prompts: choose one each"
            )
    count = len(positive)
    rows = {site: value.float() for site, value in acts.items()}
    return Contrast(
        {site: value[:count] for site, value in rows.items()},
        {site: value[count:] for site, value in rows.items()},
        median_norms(model, both[:: max(1, len(both) // NORM_SAMPLE)], list(rows), template=template),
        tuple(groups) if groups is not None else tuple(map(str, range(count))),
    )


def median_norms(
    model: Model, prompts: Sequence[Any], sites: Sequence[str], *, template: str | None = None
) -> dict[str, float]:
    """Median norm of the stream at each site over the tokens that count."""
    acts = model.read(list(prompts), sites, template=template)
    mask = token_mask(acts)
    return {site: stream_norms(value, mask)["median"] for site, value in acts.items()}
