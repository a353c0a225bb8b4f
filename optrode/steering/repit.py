"""RepIt: a behaviour's direction for one topic alone (Representing Isolated Targets, arXiv 2509.13281)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..data import Behaviour, Categorised
from ..edits import SiteEdit, subspace
from ..edits.base import Edit, Sum
from ..errors import BadInput, NotFinite
from ..model import Model
from ..parts.contrast import median_norms
from ..parts.directions import isolated
from ..parts.pairs import as_pairs, conversation
from ..parts.provenance import provenance_of
from .protocol import SteeringMethod

# The official search begins with these.
RHOS = (0.0, 0.33, 0.66, 0.99)


@dataclass(frozen=True)
class RepIt(SteeringMethod):
    """Take from a topic's direction what it shares with other topics, and set what is left to its neutral value.

    r_k = mean of category k - mean of the neutral prompts at the last prompt token, for the target and each other
    category; v* = v - a P v with P the projection on the span of the others and a = 1 - sqrt(1 - rho). The edit is
    h - (h . u) u + (h0 . u) u at every token, u = v* / |v*| and h0 the neutral mean.

    The paper whitens by the others' own covariance first, which leaves that span as it is: the closed form above is the
    same to rounding (the test holds the long form).

    data: `Categorised` prompts. Pairs or a `Behaviour` have no other categories: their showing replies are the target,
        the opposing ones neutral, read at the last token, and rho has nothing to remove.
    rho: the share of the energy within the others' span that is removed; the paper's search takes the largest effect on
        the target that leaves the others within bounds: `audit` shows the geometry for each.
    site: a block's input, as in the paper, which chooses layer and position by the COSMIC score; here they are named.
    towards: `neutral` takes the behaviour away; `target` sets the coordinate to the target's own mean instead.
    """

    id: ClassVar[str] = "repit"
    title: ClassVar[str] = "RepIt"
    paper: ClassVar[str] = "2509.13281"
    layer_site: ClassVar[str] = "layers.{layer}.in"
    strength_unit: ClassVar[str] = "operator"
    strength_scale: ClassVar[float] = 2.5

    site: str = "layers.15.in"
    positions: str = "all"
    rho: float = 0.75
    towards: str = "neutral"

    def facing(self, sign: int) -> SteeringMethod:
        return replace(self, towards="target" if sign > 0 else "neutral")

    def fit(self, model: Model, data: Any) -> Edit:
        """`Categorised` prompts, pairs or a `Behaviour` -> an edit at every site that `site` selects.

        Raises `UnknownSite`, `NotFinite`, and `BadInput` for an empty category, or a target that lies in the span of
        the others. Cost: one forward a prompt, up to the last site.
        """
        sites = [found.address for found in model.match(self.site)]
        edits = tuple(self._fit_sites(model, data, sites).values())
        return edits[0] if len(edits) == 1 else Sum(edits)

    def fit_layers(self, model: Model, behaviour: Behaviour, layers: Sequence[int]) -> dict[int, Edit]:
        sites = {layer: self.layer_site.format(layer=layer) for layer in layers}
        found = self._fit_sites(model, behaviour, list(sites.values()))
        return {layer: found[site] for layer, site in sites.items()}

    def audit(self, model: Model, data: Any, rhos: Sequence[float] = RHOS) -> list[dict[str, Any]]:
        """How much of the direction is left at each rho, and what it still has in common with each other category.

        One entry for each site and rho: `kept` = |v*| / |v|, `cosine` of v* and v, and `others`, the cosine of v* with
        each category's own direction.
        """
        sites = [found.address for found in model.match(self.site)]
        means = self._means(model, data, sites)
        rows = []
        for site in sites:
            target, others, neutral = means[site]
            v, apart = target - neutral, {name: mean - neutral for name, mean in others.items()}
            for rho in rhos:
                left = isolated(v, _stacked(apart, v), rho)
                cosine = {name: _cosine(left, other) for name, other in apart.items()}
                rows.append(
                    {
                        "site": site, "rho": rho, "kept": float(left.norm() / v.norm()), "cosine": _cosine(left, v),
                        "others": cosine,
                    }
                )  # fmt: skip
        return rows

    def _fit_sites(self, model: Model, data: Any, sites: list[str]) -> dict[str, SiteEdit]:
        if self.towards not in ("neutral", "target"):
            raise BadInput(f"towards '{self.towards}' is not known: use neutral or target")
        means = self._means(model, data, sites)
        norms = median_norms(model, self._prompts(data)[2][:16], sites)
        found = {}
        for site in sites:
            target, others, neutral = means[site]
            apart = {name: mean - neutral for name, mean in others.items()}
            left = isolated(target - neutral, _stacked(apart, neutral), self.rho)
            if not float(left.norm()) > 1e-6 * float((target - neutral).norm().clamp(min=1e-30)):
                raise BadInput(
                    f"nothing of the target's direction is left at {site}: it lies in the span of the others; lower "
                    "rho, or give fewer other categories"
                )
            u = left / left.norm()
            goal = target if self.towards == "target" else neutral
            edit = subspace(site, u.float(), torch.zeros(1, len(u)), (goal @ u).float().reshape(1), self.positions)
            known = {**self.recipe(), "kept": round(float(left.norm() / (target - neutral).norm()), 4)}
            found[site] = replace(edit, provenance=provenance_of(model, site, known, norms[site]))
        return found

    def _means(self, model: Model, data: Any, sites: list[str]) -> dict[str, tuple[Tensor, dict[str, Tensor], Tensor]]:
        """The mean of the target, of each other category and of the neutral prompts at each site, in float64."""
        target, others, neutral = self._prompts(data)
        groups = {"": target, **{f"other {name}": prompts for name, prompts in others.items()}, "neutral": neutral}
        acts = model.read([prompt for prompts in groups.values() for prompt in prompts], sites, positions="last_prompt")
        found = {}
        for site in sites:
            if not bool(torch.isfinite(acts[site]).all()):
                raise NotFinite(f"the activations at {site} hold NaN or infinity: use float32, or check the inputs")
            parts = acts[site].double().split([len(prompts) for prompts in groups.values()])
            mean = dict(zip(groups, (part.mean(0) for part in parts), strict=True))
            found[site] = (mean[""], {name: mean[f"other {name}"] for name in others}, mean["neutral"])
        return found

    def _prompts(self, data: Any) -> tuple[list[Any], dict[str, list[Any]], list[Any]]:
        if isinstance(data, Categorised):
            target, neutral = list(data.target), list(data.neutral)
            others = {name: list(prompts) for name, prompts in data.others.items()}
        else:
            pairs = as_pairs(data)
            target = [conversation(pair.prompt, pair.positive) for pair in pairs]
            neutral = [conversation(pair.prompt, pair.negative) for pair in pairs]
            others = {}
        for name, prompts in {"target": target, "neutral": neutral, **others}.items():
            if not prompts:
                raise BadInput(f"the category '{name}' is empty: give it at least one prompt")
        return target, others, neutral


def _stacked(apart: dict[str, Tensor], like: Tensor) -> Tensor:
    return torch.stack(list(apart.values())) if apart else like.new_zeros(0, len(like))


def _cosine(one: Tensor, other: Tensor) -> float:
    return float(torch.cosine_similarity(one, other, dim=0))
