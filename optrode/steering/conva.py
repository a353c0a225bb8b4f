"""Controlled value vectors (Internal Value Alignment in LLMs through Controlled Value Vectors, arXiv 2507.11316)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from ..data import Behaviour
from ..edits import when
from ..edits.base import Edit, SiteEditBase
from ..errors import BadInput, did_you_mean
from ..model import Model
from ..parts.gates import Gate, fit_gate, prompts_of
from ..parts.probe import fit_logistic
from .concept_shift import ConceptShift

GATES = ("probe", "none")


@dataclass(frozen=True)
class ConVA(ConceptShift):
    """Make answers express a value by the smallest shift that its probe asks for, on prompts that touch the value.

    eps = I 1[P(e) < P0] (logit(P0) - w . e - b) / |w|; I says whether the prompt touches the value. The data should be
    pairs of replies that differ in nothing but the value, which is what keeps the probe from learning the topic.

    site: all layers by default; `last` of them, counted from the end, are left out (the paper's 5), and so are those
        whose probe is right on at most `accuracy` of held-out pairs.
    gate: `probe`: I is a logistic probe on the mean of the prompt, whose layer and threshold are chosen by F1 on
        prompts that it was not fitted on (see `op.data.Conditioned`). The paper's is a text classifier of its own; any
        one can take its place: fit with `none` and give each row its edit with `op.edits.by_row`. `none`: the paper's
        ablation, every prompt.
    gate_site: the sites on offer for the gate; those before the first one that is edited are used.
    probability: P0; neither it nor the positions were found in the paper's text.
    """

    id: ClassVar[str] = "conva"
    title: ClassVar[str] = "ConVA"
    paper: ClassVar[str] = "2507.11316"

    site: str = "layers.*.out"
    positions: str = "after_instruction"
    probability: float = 0.99
    last: int = 5
    gate: str = "probe"
    gate_site: str = "layers.*.out"
    gate_positions: str = "content"

    @classmethod
    def variants(cls) -> tuple[ConVA, ...]:
        return (cls(), cls(gate="none"))

    @property
    def label(self) -> str:
        return self.title if self.gate == "probe" else f"{self.title} (no gate)"

    def fit(self, model: Model, data: Any) -> Edit:
        self._check()
        edit = self._without_last(model).ungated(model, data)
        return self._gated(model, data, {0: edit})[0]

    def ungated(self, model: Model, data: Any) -> SiteEditBase:
        """The shift on every prompt."""
        edit = super().fit(model, data)
        assert isinstance(edit, SiteEditBase)
        return edit

    def fit_layers(self, model: Model, behaviour: Behaviour, layers: Sequence[int]) -> dict[int, Edit]:
        self._check()
        return self._gated(model, behaviour, super().fit_layers(model, behaviour, layers))  # type: ignore[arg-type]

    def _check(self) -> None:
        if self.gate not in GATES:
            raise BadInput(f"gate '{self.gate}' is not known: {did_you_mean(self.gate, GATES)}")

    def _without_last(self, model: Model) -> ConVA:
        """The method without the last blocks, where `site` selects several."""
        from dataclasses import replace

        sites = [found.address for found in model.match(self.site)]
        kept = [site.address for site in model.match(self.site) if (site.layer or 0) < model.layers - self.last]
        if len(sites) == 1 or len(kept) == len(sites):
            return self
        if not kept:
            raise BadInput(
                f"'{self.site}' lies in the last {self.last} blocks, which are left out: use a smaller last="
            )
        return replace(self, site="{" + ",".join(kept) + "}")

    def _gated(self, model: Model, data: Any, edits: dict[int, SiteEditBase]) -> dict[int, Edit]:
        if self.gate == "none":
            return dict(edits)
        inside, outside = prompts_of(data)
        firsts = {key: _first_layer(edit) for key, edit in edits.items()}
        found: dict[int, Gate] = {}
        for first in sorted(set(firsts.values())):
            found[first] = self._fit_gate(model, inside, outside, first)
        return {key: when(found[firsts[key]].condition, edit) for key, edit in edits.items()}

    def _fit_gate(self, model: Model, inside: list[Any], outside: list[Any], first: int) -> Gate:
        sites = [site.address for site in model.match(self.gate_site) if site.layer is not None and site.layer < first]
        if not sites:
            # Nothing lies before the first block but the embedding, on which a probe can be fitted too.
            sites = ["layers.0.in"]
        return fit_gate(model, inside, outside, sites, _probe, measure="linear", positions=self.gate_positions)


def _probe(inside: Tensor, outside: Tensor) -> Tensor:
    return fit_logistic(inside, outside)[0]


def _first_layer(edit: SiteEditBase) -> int:
    return min(int(leaf.site.split(".")[1]) for leaf in edit.leaves())
