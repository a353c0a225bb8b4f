"""LinEAS (End-to-end Learning of Activation Steering with a Distributional Loss, arXiv 2503.10679)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..batches import Batch
from ..data import Behaviour
from ..edits import SiteEdit, affine
from ..edits.base import Edit, Sum
from ..engine.progress import track
from ..errors import BadInput, NotFinite, NotSupported
from ..model import Model
from ..parts.contrast import Contrast
from ..parts.transport import sorted_distance
from ..positions import Positions
from .transporting import Talks, TransportMethod

# What the maps do to some examples of the source at every site: [example, width] each, in the units of the loss.
Outputs = Callable[["list[Tensor]", "list[Tensor]", Tensor], "list[Tensor]"]


@dataclass(frozen=True)
class LinEAS(TransportMethod):
    """Scale and shift of every coordinate at all sites, learnt together so that the source comes to lie as the target.

    T_l(z) = w_l z + b_l, from the identity on. The loss is the sum over sites of the mean over coordinates of the
    squared distance by rank between what the maps make of the source, each site behind the maps before it, and the
    plain target. A sparse group lasso around the identity, of weight `gamma`, selects coordinates and sites: a step is
    one down the gradient and then its proximal operator.

    steps, learning_rate: of gradient descent, with cosine decay.
    gamma: 0 selects nothing; the paper finds up to 0.1 useful.
    batch: examples of either side in a step.
    normalised: distances at a site are divided by the mean square of its target there, so that one learning rate serves
        the stream and what norms give. False is the paper's, which sits behind norms, where squares are near 1.
    """

    id: ClassVar[str] = "lineas"
    title: ClassVar[str] = "LinEAS"
    paper: ClassVar[str] = "2503.10679"

    steps: int = 1000
    learning_rate: float = 0.1
    gamma: float = 0.0
    batch: int = 32
    normalised: bool = True
    seed: int = 0

    def fit(self, model: Model, data: Any) -> Edit:
        """Pairs (or a `Behaviour`) -> maps at every site that `site` selects.

        Raises `UnknownSite`, `BadInput` (empty or one-class data), `NotSupported` where tokens that are averaged are
        not all edited, `NotFinite` where the learning rate is too large. Cost: `steps` forwards and backwards of
        `batch` conversations, up to the last site; of one site, whose means the map acts on directly, none.
        """
        self._check()
        sites = [found.address for found in model.match(self.site)]
        talks = self.talks(data)
        clean = self.read(model, talks, sites)
        if len(sites) == 1:
            return self._alone(model, clean, sites[0])
        sizes = self._sizes(clean, sites)
        weights, shifts = self._learn(clean, sites, sizes, self._through(model, talks, sites, sizes), track_steps=True)
        edits = [
            self._edit(model, clean, site, weight, size * shift)
            for site, size, weight, shift in zip(sites, sizes, weights, shifts, strict=True)
        ]
        return Sum(tuple(edits))

    def fit_layers(self, model: Model, behaviour: Behaviour, layers: Sequence[int]) -> dict[int, Edit]:
        """One map of the stream per layer, of which a comparison chooses one."""
        self._check()
        sites = {layer: self.layer_site.format(layer=layer) for layer in layers}
        clean = self.read(model, self.talks(behaviour), list(sites.values()))
        return {layer: self._alone(model, clean, site) for layer, site in sites.items()}

    def _check(self) -> None:
        if self.positions != "all":
            raise NotSupported(
                f"LinEAS edits every token that it averages over: positions '{self.positions}' leave some out"
            )
        if self.steps < 1 or self.batch < 2 or not self.learning_rate > 0 or self.gamma < 0:
            raise BadInput("steps must be at least 1, batch at least 2, learning_rate above 0 and gamma not below 0")

    def _alone(self, model: Model, clean: Contrast, site: str) -> SiteEdit:
        """The map of a single site: the mean of mapped tokens is the mapped mean, so no forward is needed."""
        sizes = self._sizes(clean, [site])
        source = clean.negative[site] / sizes[0]

        def outputs(weights: list[Tensor], shifts: list[Tensor], rows: Tensor) -> list[Tensor]:
            return [weights[0] * source[rows] + shifts[0]]

        (weight,), (shift,) = self._learn(clean, [site], sizes, outputs)
        return self._edit(model, clean, site, weight, sizes[0] * shift)

    def _sizes(self, clean: Contrast, sites: Sequence[str]) -> list[float]:
        """The unit of length at each site."""
        if not self.normalised:
            return [1.0] * len(sites)
        return [max(float(clean.positive[site].square().mean().sqrt()), 1e-12) for site in sites]

    def _through(self, model: Model, talks: Talks, sites: list[str], sizes: list[float]) -> Outputs:
        """What the source's conversations give in the network with all maps."""
        source = model.encode(talks[0])
        pooled = Positions(self.pooled(model)).in_prompt(source)
        starts = [affine(site, torch.ones(1), torch.zeros(1)) for site in sites]

        def outputs(weights: list[Tensor], shifts: list[Tensor], rows: Tensor) -> list[Tensor]:
            parts = zip(starts, weights, shifts, sizes, strict=True)
            maps = [start.with_tensors({"weight": w, "bias": size * b}) for start, w, b, size in parts]
            some: Batch = source.only(rows)
            with model.edited(Sum(tuple(maps))):
                acts = model.read(some, sites, grad=True)
            mask = pooled[rows][..., None].to(model.device)
            means = [(acts[site].float() * mask).sum(1) / mask.sum(1) for site in sites]
            return [mean.cpu() / size for mean, size in zip(means, sizes, strict=True)]

        return outputs

    def _learn(
        self, clean: Contrast, sites: list[str], sizes: list[float], outputs: Outputs, *, track_steps: bool = False
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Scales and shifts of all sites, shifts in the units of the loss."""
        targets = [clean.positive[site].cpu() / size for site, size in zip(sites, sizes, strict=True)]
        count = len(targets[0])
        if count < 2:
            raise BadInput("LinEAS needs at least two examples of either side: give more pairs")
        weights = [torch.ones_like(target[0]) for target in targets]
        shifts = [torch.zeros_like(target[0]) for target in targets]
        made = torch.Generator().manual_seed(self.seed)
        numbers = range(self.steps)
        for step in track(numbers, "training LinEAS") if track_steps else numbers:
            size = min(self.batch, count)
            rows, others = (torch.randperm(count, generator=made)[:size] for _ in range(2))
            leaves = [value.requires_grad_(True) for value in (*weights, *shifts)]
            with torch.enable_grad():
                loss = sum(
                    sorted_distance(out, target[others]).mean()
                    for out, target in zip(outputs(weights, shifts, rows), targets, strict=True)
                )
                assert isinstance(loss, Tensor)
                gradients = torch.autograd.grad(loss, leaves)
            if not bool(torch.isfinite(loss)):
                raise NotFinite(f"the loss is no number after {step} steps: lower learning_rate={self.learning_rate:g}")
            pace = self.learning_rate * 0.5 * (1 + math.cos(math.pi * step / self.steps))
            moved = [leaf.detach() - pace * slope for leaf, slope in zip(leaves, gradients, strict=True)]
            weights = [1 + proximal(value - 1, pace * self.gamma) for value in moved[: len(sites)]]
            shifts = [proximal(value, pace * self.gamma) for value in moved[len(sites) :]]
        return weights, shifts

    def _edit(self, model: Model, clean: Contrast, site: str, weight: Tensor, bias: Tensor) -> SiteEdit:
        support = float(((weight != 1) | (bias != 0)).float().mean())
        edit = affine(site, weight, bias, self.positions)
        return self.signed(model, edit, clean.norm[site], support=round(support, 4))


def proximal(value: Tensor, weight: float) -> Tensor:
    """argmin over x of |x - value|^2 / 2 + weight (|x|_1 + sqrt(d) |x|_2): a sparse group lasso, value [d].

    Every coordinate is drawn towards 0 by `weight`, then all of them together by `weight` sqrt(d).
    """
    if not weight:
        return value
    soft = value.sign() * (value.abs() - weight).clamp(min=0)
    norm = soft.norm()
    shrunk = (1 - weight * math.sqrt(value.numel()) / norm.clamp(min=1e-30)).clamp(min=0)
    return shrunk * soft
