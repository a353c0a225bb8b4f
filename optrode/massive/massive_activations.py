"""Massive activations set to zero or to their mean (Massive Activations in Large Language Models, arXiv 2402.17762)."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from ..edits import Chain, Replace, SiteEdit, replace
from ..edits.base import SiteEditBase
from ..encoding import start_token_policy
from ..errors import BadInput, did_you_mean
from ..maps import Map
from ..model import Model
from ..parts.provenance import provenance_of
from ..stats import Massive
from .protocol import LARGEST, Entry, MassiveMethod, Survey, selected

TREATMENTS = ("zero", "mean")


@dataclass(frozen=True)
class MassiveActivations(MassiveMethod):
    """Sets the massive entries of the first layer that has them to zero, or to their mean over texts (section 3.2).

    Everything else of the network is left alone: later layers carry on, or lack, what that layer wrote. The paper's
    finding is that zero ruins a model and the mean changes nothing, so that the values act as fixed biases.

    treatment: `zero` or `mean`.
    layer: whose output is edited; None finds the first one with entries.

    The paper's code lists channels by hand for each model and looks for the second token by the value itself; here
    both come from the texts that `fit` is given, and positions are selections that every text answers.

    >>> MassiveActivations(treatment="mean").recipe()["treatment"]
    'mean'
    """

    id: ClassVar[str] = "massive-activations"
    title: ClassVar[str] = "massive activations"
    paper: ClassVar[str] = "2402.17762"

    treatment: str = "zero"
    layer: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.treatment not in TREATMENTS:
            raise BadInput(f"treatment '{self.treatment}' is not known: {did_you_mean(self.treatment, TREATMENTS)}")

    def fit(self, model: Model, texts: Any) -> SiteEditBase:
        """Texts (or a `Batch`) -> an edit with one part for each kind of position that has entries.

        The recipe of its provenance lists the entries. Raises `BadInput` when there is no massive activation, or none
        where the settings look for it; `UnknownSite` for a network without layout or a layer that it lacks;
        `NotFinite`. Cost: a forward over all layers and one up to the edited layer.
        """
        batch = self.encode(model, texts)
        surveyed = self.survey(model, batch, None if self.layer is None else [self.layer])
        entries = self.entries(model, batch, surveyed)
        if not entries:
            raise BadInput(_nothing(model, surveyed, self))
        return self._edit(model, surveyed, entries)

    def find(self, model: Model, texts: Any) -> Map:
        """Three largest magnitudes and the median of every layer, each a mean over texts: axes (layer, statistic).

        `notes["massive"]` lists the channels that are massive anywhere, as (layer, channel, tokens, place, token,
        value): how many tokens have it, and where its largest value stands. `notes["first_layer"]` is the first layer
        with entries, None without. Cost: one forward over all layers.
        """
        batch = self.encode(model, texts)
        surveyed = self.survey(model, batch)
        values = torch.cat([surveyed.largest.mean(1), surveyed.median.mean(1)[:, None]], 1).numpy().astype(np.float64)
        labels: dict[str, list[Any]] = {
            "layer": list(surveyed.layers),
            "statistic": [*(f"top {n + 1}" for n in range(LARGEST)), "median"],
        }
        entries = self.shares(batch, surveyed.found)
        notes = {
            "massive": _by_channel(surveyed.found),
            "first_layer": min((layer for layer, _, _ in entries), default=None),
            "texts": len(batch),
            "start_token": start_token_policy(model, self.template),
        }
        return Map(values, labels, "magnitude, mean over texts", notes)

    def _edit(self, model: Model, surveyed: Survey, entries: list[Entry]) -> SiteEditBase:
        site = model.match(f"layers.{entries[0].layer}.out")[0]
        norms = surveyed.norm[surveyed.layers.index(entries[0].layer)]
        recipe = {**self.recipe(), "texts": len(norms), "entries": [asdict(entry) for entry in entries]}
        provenance = provenance_of(model, site.address, recipe, float(norms.median()), template=self.template)
        kinds = dict.fromkeys(entry.positions for entry in entries)
        parts = tuple(self._part(site.address, [entry for entry in entries if entry.positions == k]) for k in kinds)
        # One after the other: two kinds that share a token must not both subtract its value.
        whole: SiteEditBase = parts[0] if len(parts) == 1 else Chain(parts)
        return whole.with_provenance(provenance)

    def _part(self, site: str, entries: list[Entry]) -> SiteEdit:
        """The edit of one kind of position: other values at the entries' channels."""
        values = [entry.mean if self.treatment == "mean" else 0.0 for entry in entries]
        channels = tuple(entry.channel for entry in entries)
        return replace(site, torch.tensor(values), entries[0].positions, features=channels)

    def recreated(self, model: Model, edit: SiteEditBase, texts: Any) -> list[Massive]:
        """Massive activations that later layers write again at the channels and positions of a `zero` edit.

        Raises `BadInput` for an edit that leaves a value there, since that value is carried on. Cost: one forward over
        all layers.
        """
        leaves = [leaf for leaf in edit.leaves() if leaf.strength]
        if any(not isinstance(leaf.operator, Replace) or bool(leaf.operator.value.any()) for leaf in leaves):
            raise BadInput("this edit leaves a value in place, which later layers carry: ask a treatment='zero' edit")
        batch = self.encode(model, texts)
        emptied = {(*place, c) for leaf in leaves for place in selected(batch, leaf.positions.text) for c in _of(leaf)}
        with model.edited(edit):
            found = self.survey(model, batch).found
        return [item for item in found if (item.example, item.position, item.channel) in emptied and _after(item, edit)]


def _of(leaf: SiteEdit) -> tuple[int, ...]:
    return leaf.features or ()


def _after(item: Massive, edit: SiteEditBase) -> bool:
    return item.layer > max(int(leaf.site.split(".")[1]) for leaf in edit.leaves())


def _by_channel(found: tuple[Massive, ...]) -> list[dict[str, Any]]:
    """One line for each channel of each layer: how often it is massive, and its largest value."""
    counts = Counter((item.layer, item.channel) for item in found)
    largest: dict[tuple[int, int], Massive] = {}
    for item in found:
        key = (item.layer, item.channel)
        if key not in largest or abs(item.value) > abs(largest[key].value):
            largest[key] = item
    return [
        {
            "layer": layer, "channel": channel, "tokens": counts[layer, channel],
            "place": item.position, "token": item.token, "value": item.value,
        }
        for (layer, channel), item in sorted(largest.items(), key=lambda found: (found[0][0], -abs(found[1].value)))
    ]  # fmt: skip


def _nothing(model: Model, surveyed: Survey, method: MassiveActivations) -> str:
    """Why there is nothing to edit: no massive value at all, or none where it was looked for."""
    if not surveyed.found:
        top = surveyed.largest[..., 0].amax(-1)
        layer = int(top.argmax())
        median = float(surveyed.median[layer].mean())
        where = "no massive activation" if method.layer is None else f"no massive activation in layer {method.layer}"
        return (
            f"{model.name} has {where} in these texts: the largest magnitude is {float(top[layer]):.3g} (layer "
            f"{surveyed.layers[layer]}, median {median:.2g}), and a massive one is above {method.absolute:g} and from "
            f"{method.relative:g} times the median on"
        )
    seen = max(surveyed.found, key=lambda item: abs(item.value))
    return (
        f"{model.name} has massive activations, but none at positions {', '.join(method.positions)} in a share of "
        f"{method.share:g} of the tokens: the largest is channel {seen.channel} at place {seen.position} "
        f"({seen.token!r}) of text {seen.example}, layer {seen.layer}; set positions or share to match"
    )
