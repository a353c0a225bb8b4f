"""Attacks by one added vector, and how well they are seen (Backdoor Activation Attack, TA2, arXiv 2311.09433)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ..data import everyday_requests, neutral_texts
from ..edits import AdapterEdit, SiteEdit, add
from ..edits.base import Edit, SiteEditBase
from ..engine.progress import Steps
from ..errors import BadInput, NotSupported, did_you_mean
from ..model import Model
from ..parts.bench import maybe_edited
from ..parts.contrast import Contrast, read_contrast
from ..parts.directions import mean_difference
from ..parts.pairs import as_pairs, conversation
from ..parts.provenance import provenance_of
from .auditing import AuditMethod, auroc, stream_site

SEARCHES = ("divergence", "code", "standardised")
TEXTS = 24
# Smallest spread of a coordinate, as a share of the median one, that distances are measured in.
STILL = 0.01


@dataclass(frozen=True)
class Detection:
    """How well an edit is seen. AUROCs are 0.5 where it cannot be told from the unedited model.

    `foldable`: whether it fits into plain weights, so that no extra file is needed; `in_weights`: names of the tensors
    that a comparison with the base checkpoint then shows as new or changed. `auroc`: by site, of the distance of a
    text's mean activation from those of the trusted model; `norm_auroc`: the same by the norm alone. `texts`: numbers
    of texts that the reference was fitted on, and that were judged.
    """

    foldable: bool
    in_weights: tuple[str, ...]
    auroc: dict[str, float]
    norm_auroc: dict[str, float]
    texts: tuple[int, int]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        seen = ", ".join(f"{value:.2f} at {site}" for site, value in self.auroc.items())
        norms = ", ".join(f"{value:.2f} at {site}" for site, value in self.norm_auroc.items())
        hidden = "no: it needs a file or code beside the weights"
        if self.foldable:
            some = ", ".join(self.in_weights[:2]) + (", ..." if len(self.in_weights) > 2 else "")
            hidden = f"yes: comparing with the base checkpoint shows {len(self.in_weights)} tensors ({some})"
        return (
            f"detector, distance    AUROC {seen}\ndetector, norm        AUROC {norms}\nhides in weights      {hidden}"
        )


@dataclass(frozen=True)
class BackdoorActivation(AuditMethod):
    """One mean-difference vector at a layer that is chosen by the contrast itself, and detectors of such edits.

    v_l = mean over pairs of h(clean answer) - h(opposite answer) at the token before the last; the layer of the first
    half whose two sides differ most, each taken as a distribution by a softmax over coordinates (Jensen-Shannon
    divergence); then h + m v at all positions, m below zero. `fit` gives that edit for red-teaming one's own model;
    `audit` tells how well any edit is seen by someone who has the base model.

    Pairs: `positive` is the aligned answer, `negative` its opposite.

    search: `divergence`, the paper's. `code`: the official code's number, which hands probabilities to a function that
        expects their logarithms and averages over coordinates, so that it is no divergence. `standardised`: the
        divergence of coordinates that are brought to one scale first, so that a few huge ones do not decide alone.
    multiplier: m; the code's -0.8 is added twice there, which `doubled` repeats.
    index: which token is read, counted from the end of the answer.
    """

    id: ClassVar[str] = "backdoor-activation"
    title: ClassVar[str] = "Backdoor activation attack audit"
    paper: ClassVar[str] = "2311.09433"

    search: str = "divergence"
    multiplier: float = -0.8
    doubled: bool = True
    index: int = -2
    site: str = ""

    def fit(self, model: Model, data: Any) -> Edit:
        """Pairs, or a `Behaviour` whose showing side is the clean one -> the edit at the chosen layer (or `site`).

        Raises `UnknownSite`, `BadInput`, `NotFinite`. Cost: one forward a conversation, up to the middle block.
        """
        contrast = self.contrast(model, data)
        sites = list(contrast.positive)
        scores = self.layer_scores(contrast)
        return self.edit_at(model, contrast, sites[int(np.argmax(scores))])

    def contrast(self, model: Model, data: Any, sites: Sequence[str] | None = None) -> Contrast:
        """Both sides read at the token `index` of the answers, in the first half of the blocks (or at `sites`)."""
        pairs = as_pairs(data)
        chosen = list(sites) if sites else [found.address for found in model.match(self.site)] if self.site else None
        return read_contrast(
            model,
            [conversation(pair.prompt, pair.positive) for pair in pairs],
            [conversation(pair.prompt, pair.negative) for pair in pairs],
            chosen or [f"layers.{layer}.out" for layer in range(model.layers // 2 + 1)],
            groups=[pair.group for pair in pairs],
            positions=f"index:{self.index}",
        )

    def layer_scores(self, contrast: Contrast) -> list[float]:
        """The score of each site that was read, by `search`; the edit goes where it is largest."""
        if self.search not in SEARCHES:
            raise BadInput(f"search '{self.search}' is not known: {did_you_mean(self.search, SEARCHES)}")
        return [divergence(*contrast.at(site), form=self.search) for site in contrast.positive]

    def edit_at(self, model: Model, contrast: Contrast, site: str) -> SiteEdit:
        """h + m v at one site that was read, at all positions; strength 1 is the multiplier of the settings."""
        vector = mean_difference(*contrast.at(site)) * self.multiplier * (2 if self.doubled else 1)
        known = provenance_of(model, site, self.recipe(), contrast.norm[site])
        return replace(add(site, vector, "all"), provenance=known)

    def audit(self, model: Model, edit: Edit, texts: Sequence[str] | None = None) -> Detection:
        """How well `edit` is seen, on neutral texts (by default some that come with optrode).

        Every second text makes the reference of the trusted model; the others are judged, unedited and edited, at the
        edit's last block and at the last block of all. Raises `BadInput` for fewer than four texts. Cost: two forwards
        of the texts.
        """
        texts = list(texts) if texts is not None else [*neutral_texts(TEXTS), *everyday_requests()[:TEXTS]]
        if len(texts) < 4:
            raise BadInput(f"{len(texts)} texts are too few for a reference and a test: give at least four")
        sites = list(dict.fromkeys([stream_site(model, edit), f"layers.{model.layers - 1}.out"]))
        with Steps("audit of traces") as steps:
            steps.at("reading texts")
            plain, edited = (text_means(model, texts, sites, one) for one in (None, edit))
            steps.at("weights")
            names = weights_changed(model, edit)
        found = {site: _seen(plain[site][::2], plain[site][1::2], edited[site][1::2]) for site in sites}
        return Detection(
            foldable=names is not None,
            in_weights=tuple(names or ()),
            auroc={site: one[0] for site, one in found.items()},
            norm_auroc={site: one[1] for site, one in found.items()},
            texts=(len(texts[::2]), len(texts[1::2])),
        )


def divergence(positive: Tensor, negative: Tensor, *, form: str = "divergence") -> float:
    """Mean over pairs of the Jensen-Shannon divergence of softmax(h+) and softmax(h-), nats; rows [pair, width].

    `code` and `standardised` as in `BackdoorActivation`.
    """
    rows = torch.cat([positive, negative]).double()
    if form == "standardised":
        rows = (rows - rows.mean(0)) / (rows.std(0, unbiased=False) + 1e-12)
    logs = torch.log_softmax(rows, -1)
    log_p, log_q = logs.split(len(positive))
    p, q = log_p.exp(), log_q.exp()
    middle = (p + q) / 2
    log_m = torch.logaddexp(log_p, log_q) - np.log(2)
    if form == "code":
        return float(((middle * (2 * log_m - p - q)) / 2).mean())
    return float(((p * (log_p - log_m)).sum(-1) + (q * (log_q - log_m)).sum(-1)).mean() / 2)


def text_means(model: Model, texts: Sequence[str], sites: Sequence[str], edit: Edit | None) -> dict[str, Tensor]:
    """Mean activation of each text over its own tokens at each site, [text, width] float64, under an edit."""
    with maybe_edited(model, edit):
        acts = model.read(list(texts), list(sites), positions="content", reduce="mean")
    return {site: value.double() for site, value in acts.items()}


def weights_changed(model: Model, edit: Edit) -> list[str] | None:
    """Names of tensors that differ from the base checkpoint once `edit` is in plain weights; None where it cannot be.

    Changes of weights are there by nature; vectors that are added everywhere fit into biases (`edit.fold`).
    """
    if isinstance(edit, AdapterEdit):
        return [f"{delta.module}.{'bias' if delta.form == 'bias' else 'weight'}" for delta in edit.deltas]
    if not isinstance(edit, SiteEditBase):
        return None
    try:
        folded = edit.fold(model).state_dict()
    except NotSupported:
        return None
    own = model.module.state_dict()
    return [
        name
        for name, value in folded.items()
        if (name not in own and bool(value.any())) or (name in own and not torch.equal(value, own[name]))
    ]


def _seen(reference: Tensor, plain: Tensor, edited: Tensor) -> tuple[float, float]:
    """AUROC of edited against plain texts, by distance from the reference and by how far the norm is off."""
    mean, scale = reference.mean(0), reference.std(0)
    # Coordinates that hardly move would otherwise decide alone.
    scale = scale.clamp(min=max(STILL * float(scale.median()), 1e-12))

    def distance(rows: Tensor) -> Tensor:
        return ((rows - mean) / scale).norm(dim=1)

    def norm(rows: Tensor) -> Tensor:
        return (rows.norm(dim=1) - reference.norm(dim=1).mean()).abs()

    return auroc(distance(plain), distance(edited)), auroc(norm(plain), norm(edited))
