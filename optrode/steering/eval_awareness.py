"""Acting as in use while being tested (Steering Evaluation-Aware Language Models, arXiv 2510.20487)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..batches import Batch, Role
from ..data import Categorised
from ..edits import add
from ..edits.base import Edit, SiteEdit, Sum
from ..errors import BadInput, NotFinite
from ..model import Model
from ..parts.contrast import Contrast, median_norms
from ..parts.directions import mean_difference
from ..parts.pairs import showing_and_neutral
from .protocol import DirectionMethod

# Six layers between an eighth and three eighths of the depth: 10 to 30 of 80.
DEPTHS = (0.125, 0.175, 0.225, 0.275, 0.325, 0.375)


@dataclass(frozen=True)
class EvalAwareness(DirectionMethod):
    """Mean difference of messages of use and of testing, added at six layers to the user's and the written tokens.

    v_l = mean over pairs of h(use) - h(test) at the last token of each one-line message, a colon; then h + 0.6 v_l at
    every layer at once. System prompt and template are never touched. The vectors are fitted on the model as it was
    before it learnt the behaviour, so that they can hold the situation alone; a strength below zero pushes to testing.

    data: `Categorised` messages, use as target and testing as neutral (`optrode.data.situations.deployment_pairs`).
        Pairs or a `Behaviour`: both replies, read at their last token.
    site: empty for six layers between 1/8 and 3/8 of the depth, the paper's share.
    scale: of each layer; six of them add up to 3.6.
    positions: what user and assistant say. The paper exempts one sentence more; notes on it differ in which, so it is
        left out here.
    """

    id: ClassVar[str] = "eval-awareness"
    title: ClassVar[str] = "evaluation awareness"
    paper: ClassVar[str] = "2510.20487"

    site: str = ""
    positions: str = "dialogue"
    scale: float = 0.6

    def direction(self, positive: Tensor, negative: Tensor) -> Tensor:
        return mean_difference(positive, negative)

    def sites(self, model: Model) -> list[str]:
        """Addresses of the sites that are read and edited. Raises `UnknownSite`."""
        if self.site:
            return [found.address for found in model.match(self.site)]
        return [f"layers.{layer}.out" for layer in sorted({int(depth * model.layers) for depth in DEPTHS})]

    def fit(self, model: Model, data: Any) -> Edit:
        """An edit at all sites together. Raises `UnknownSite`, `BadInput`, `NotFinite`. Cost: one forward a message."""
        sites = self.sites(model)
        contrast = self.contrast(model, data, sites)
        parts = tuple(self.edit_at(model, contrast, site) for site in sites)
        return parts[0] if len(parts) == 1 else Sum(parts)

    def edit_at(self, model: Model, contrast: Contrast, site: str) -> SiteEdit:
        vector = self.scale * self.direction(*contrast.at(site))
        return self.signed(model, add(site, vector, self.positions), contrast.norm[site])

    def contrast(self, model: Model, data: Any, sites: str | Sequence[str]) -> Contrast:
        """Both sides at the last token of the last message: the colon of messages, the end of replies."""
        shown, neutral = showing_and_neutral(data)
        if len(shown) != len(neutral):
            raise BadInput(f"{len(shown)} messages of use and {len(neutral)} of testing: pairs need equal numbers")
        every = [sites] if isinstance(sites, str) else list(sites)
        batch = model.encode([*shown, *neutral])
        acts = model.read(batch, every)
        rows = torch.arange(len(batch))
        place = last_said(batch)
        found = {site: acts[site][rows, place].float() for site in every}
        if not all(bool(torch.isfinite(value).all()) for value in found.values()):
            raise NotFinite("the activations hold NaN or infinity: use float32, or check the inputs")
        groups = [str(number) for number in range(len(shown))]
        if not isinstance(data, Categorised) and all(hasattr(pair, "group") for pair in getattr(data, "fit", data)):
            groups = [pair.group for pair in getattr(data, "fit", data)]
        return Contrast(
            {site: value[: len(shown)] for site, value in found.items()},
            {site: value[len(shown) :] for site, value in found.items()},
            median_norms(model, [*shown, *neutral][:: max(1, len(batch) // 16)], every),
            tuple(groups),
        )


def last_said(batch: Batch) -> Tensor:
    """The place of the last token of user or assistant in each row, [example]. Raises `BadInput` for an empty one."""
    said = batch.mask & ((batch.roles == Role.USER) | (batch.roles == Role.ASSISTANT) | (batch.roles == Role.TEXT))
    if not bool(said.any(1).all()):
        raise BadInput("a message is empty: every one needs at least one token to read")
    places = torch.arange(batch.width).expand_as(said)
    return torch.where(said, places, -1).amax(1)
