"""Broad skills and several behaviours at once (Extending Activation Steering, arXiv 2403.05767)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..data import Categorised, Pair
from ..edits import SiteEdit, add
from ..edits.base import Sum
from ..errors import BadInput, NotFinite, did_you_mean
from ..model import Model
from ..parts.contrast import Contrast, median_norms
from ..parts.pairs import as_letters, conversation
from .protocol import DirectionMethod

READINGS = ("last", "mean")
MERGES = ("sum", "mean", "orthogonal")


@dataclass(frozen=True)
class BroadSkills(DirectionMethod):
    """Difference of the means of two corpora, added at all positions of one layer.

    v = mean over texts of the one - mean over texts of the other at the last token, not normalised: text without code
    less code lowers coding. Texts need no partners, and their numbers may differ.

    data: `Categorised` texts, taken as they are without a chat template: `target` is what the model is moved towards,
        `neutral` what it is moved away from. Pairs or a `Behaviour`: two-letter questions read at the answer's letter,
        the paper's second part.
    reading: `last` token as in the paper, which depends on where a text stops; `mean` over its tokens.

    Several behaviours: `merged` puts their vectors at one layer, `simultaneous` each at a layer of its own.
    """

    id: ClassVar[str] = "broad-skills"
    title: ClassVar[str] = "broad skill vector"
    paper: ClassVar[str] = "2403.05767"

    positions: str = "all"
    reading: str = "last"

    def direction(self, positive: Tensor, negative: Tensor) -> Tensor:
        return positive.mean(0) - negative.mean(0)

    def conversations(self, pairs: Sequence[Pair]) -> tuple[list[Any], list[Any]]:
        asked = as_letters(pairs)
        return (
            [conversation(item.question, item.positive) for item in asked],
            [conversation(item.question, item.negative) for item in asked],
        )

    def contrast(self, model: Model, data: Any, sites: str | Sequence[str]) -> Contrast:
        if self.reading not in READINGS:
            raise BadInput(f"reading '{self.reading}' is not known: {did_you_mean(self.reading, READINGS)}")
        if not isinstance(data, Categorised):
            return super().contrast(model, data, sites)
        every = [sites] if isinstance(sites, str) else list(sites)
        means: list[dict[str, Tensor]] = []
        for name, texts in (("target", data.target), ("neutral", data.neutral)):
            if not texts:
                raise BadInput(f"the corpus '{name}' is empty: give at least one text")
            means.append(self._rows(model, list(texts), every))
        norms = median_norms(model, [*data.target[:8], *data.neutral[:8]], every, template="raw")
        return Contrast(means[0], means[1], norms, tuple(map(str, range(len(data.target)))))

    def _rows(self, model: Model, texts: list[Any], sites: list[str]) -> dict[str, Tensor]:
        where: dict[str, Any] = {"positions": "last_prompt"}
        if self.reading == "mean":
            where = {"positions": "content", "reduce": "mean"}
        acts = model.read(texts, sites, template="raw", **where)
        if not all(bool(torch.isfinite(acts[site]).all()) for site in sites):
            raise NotFinite("the activations hold NaN or infinity: use float32, or check the inputs")
        return {site: acts[site].float() for site in sites}


def permuted(edit: SiteEdit, seed: int) -> SiteEdit:
    """The paper's control: the coordinates of both means, and so of the vector, in one other order."""
    vector = edit.operator.tensors()["vector"]
    order = torch.randperm(len(vector), generator=torch.Generator().manual_seed(seed))
    return add(edit.site, vector[order], edit.positions) * edit.strength


def merged(edits: Sequence[SiteEdit], site: str, *, form: str = "sum") -> SiteEdit:
    """Several additions as one vector at one site, each at its own strength.

    form: `sum`, `mean`, or `orthogonal`: each vector without what it shares with all the others, which makes the order
    not matter, then their sum. Raises `BadInput` for no edits, or edits that are not additions.
    """
    if form not in MERGES:
        raise BadInput(f"form '{form}' is not known: {did_you_mean(form, MERGES)}")
    if not edits or any("vector" not in edit.operator.tensors() for edit in edits):
        raise BadInput("merging needs at least one edit, and only edits that add a vector")
    vectors = torch.stack([edit.strength * edit.operator.tensors()["vector"] for edit in edits])
    if form == "orthogonal":
        vectors = torch.stack([_alone(vectors, row) for row in range(len(vectors))])
    total = vectors.mean(0) if form == "mean" else vectors.sum(0)
    return add(site, total, edits[0].positions)


def _alone(vectors: Tensor, row: int) -> Tensor:
    """One row without its projection on the span of the others."""
    others = torch.cat([vectors[:row], vectors[row + 1 :]])
    if not len(others):
        return vectors[row]
    basis = torch.linalg.qr(others.T.double())[0]
    own = vectors[row].double()
    return (own - basis @ (basis.T @ own)).to(vectors.dtype)


def simultaneous(edits: Mapping[str, Mapping[int, SiteEdit]], layers: Mapping[str, int]) -> Sum:
    """Each behaviour at a layer of its own: `edits[behaviour][layer]` at `layers[behaviour]`.

    Raises `BadInput` where two behaviours have the same layer, or one was not fitted there.
    """
    if len(set(layers.values())) < len(layers):
        raise BadInput("two behaviours are to act at the same layer: give each a layer of its own, or use merged")
    missing = [name for name, layer in layers.items() if layer not in edits.get(name, {})]
    if missing:
        raise BadInput(f"'{missing[0]}' was not fitted at layer {layers[missing[0]]}: fit it there first")
    return Sum(tuple(edits[name][layer] for name, layer in layers.items()))
