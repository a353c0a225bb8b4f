"""Activation transport (Controlling Language and Diffusion Models by Transporting Activations, arXiv 2410.23054)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from ..data import Behaviour
from ..edits import SiteEdit
from ..edits.base import Edit, Sum
from ..engine.progress import track
from ..errors import BadInput, did_you_mean
from ..model import Model
from ..parts.contrast import Contrast
from ..parts.transport import MAPS, fit_map
from .protocol import SteeringMethod
from .transporting import Talks, TransportMethod

TARGETS = ("clean", "edited")


@dataclass(frozen=True)
class ActTransport(TransportMethod):
    """Move every coordinate's distribution from the opposing replies to the showing ones, by a map of one dimension.

    T(z) = w z + b for each coordinate; a strength s is z + s (T(z) - z).

    map: `linear`: least squares of the sorted target on the sorted source, used where z lies strictly within the range
        of the source (definition 3.1). `gaussian`: w = sd_target / sd_source. `mean`: w = 1. The last two leave
        coordinates alone whose deviation is at most 1e-4, as the official code does.
    sequential: site by site, each map fitted on what the maps before it leave (the paper's causal, the default), or
        all at once on the plain network, which is faster.
    target: what the maps before do to the target while the next is fitted: `clean`, nothing; `edited`, the official
        code's, the same as to the source.
    """

    id: ClassVar[str] = "act-transport"
    title: ClassVar[str] = "AcT"
    paper: ClassVar[str] = "2410.23054"

    map: str = "linear"
    sequential: bool = True
    target: str = "clean"

    @classmethod
    def variants(cls) -> tuple[SteeringMethod, ...]:
        return (cls(), cls(map="mean"))

    @property
    def label(self) -> str:
        return f"{self.title} ({self.map})"

    def fit(self, model: Model, data: Any) -> Edit:
        """Pairs (or a `Behaviour`) -> a map at every site that `site` selects.

        Raises `UnknownSite`, `BadInput` (empty or one-class data), `NotFinite`. Cost: one forward a conversation at
        once; where sequential, one of the source's conversations more for every site, up to that site.
        """
        self._check()
        sites = [found.address for found in model.match(self.site)]
        talks = self.talks(data)
        clean = self.read(model, talks, sites)
        edits: list[SiteEdit] = []
        for site in track(sites, "fitting transport maps"):
            contrast = self._after(model, talks, clean, site, edits) if self.sequential and edits else clean
            edits.append(self._edit(model, contrast, site))
        return edits[0] if len(edits) == 1 else Sum(tuple(edits))

    def fit_layers(self, model: Model, behaviour: Behaviour, layers: Sequence[int]) -> dict[int, Edit]:
        """One map of the stream per layer, of which a comparison chooses one."""
        self._check()
        sites = {layer: self.layer_site.format(layer=layer) for layer in layers}
        clean = self.read(model, self.talks(behaviour), list(sites.values()))
        return {layer: self._edit(model, clean, site) for layer, site in sites.items()}

    def _check(self) -> None:
        for name, value, known in (("map", self.map, MAPS), ("target", self.target, TARGETS)):
            if value not in known:
                raise BadInput(f"{name} '{value}' is not known: {did_you_mean(value, known)}")

    def _after(self, model: Model, talks: Talks, clean: Contrast, site: str, edits: list[SiteEdit]) -> Contrast:
        """What is read at a site behind the maps so far."""
        with model.edited(Sum(tuple(edits))):
            if self.target == "edited":
                return replace(self.read(model, talks, [site]), norm=clean.norm)
            source = model.read(talks[0], site, positions=self.pooled(model), reduce="mean")
        return replace(clean, negative={site: source[site].float()})

    def _edit(self, model: Model, contrast: Contrast, site: str) -> SiteEdit:
        target, source = contrast.at(site)
        edit = fit_map(source, target, self.map).edit(site, self.positions)
        return self.signed(model, edit, contrast.norm[site])
