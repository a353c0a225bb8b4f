"""Measuring massive activations: what edits of them, and of other entries of the same size, do to a network.

One half of the texts fits the edits, the other half is what everything is measured on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from ..batches import Batch
from ..data import behaviour, neutral_texts
from ..edits import SiteEdit, add, zero_ablate
from ..edits.base import SiteEditBase
from ..maps import Map
from ..model import Model
from ..parts.statistics import RESAMPLES, Interval, bootstrap_ratio, interval_over_seeds
from .massive_activations import MassiveActivations
from .protocol import Entry, Survey, nll_by_text, selected

FIRST = "first:1"


@dataclass(frozen=True)
class Texts:
    """`fit` and `test` share no passage; `other` is another kind of text."""

    fit: tuple[str, ...]
    test: tuple[str, ...]
    other: tuple[str, ...]


def texts_of(count: int | None = None) -> Texts:
    """Neutral passages in two halves, and reviews spread over their subjects."""
    passages, reviews = neutral_texts(count), [item.text for item in behaviour("sentiment").judge]
    return Texts(passages[::2], passages[1::2], tuple(reviews[:: max(1, len(reviews) // 60)]))


class Bench:
    """A network with its massive entries, and everything that the findings are measured with."""

    def __init__(self, model: Model, texts: Texts, method: MassiveActivations, table: Map):
        self.model = model
        self.texts = texts
        self.method = method
        self.table = table
        self.layer: int = table.notes["first_layer"]
        self.site = f"layers.{self.layer}.out"
        self.zero = replace(method, layer=self.layer).fit(model, texts.fit)
        self.entries = [Entry(**entry) for entry in self.zero.leaves()[0].provenance.recipe["entries"]]
        self.channels = [entry.channel for entry in self.entries]
        self.batch = method.encode(model, texts.test)

    @property
    def top(self) -> Entry:
        """The largest entry."""
        return max(self.entries, key=lambda entry: abs(entry.mean))

    @cached_property
    def survey(self) -> Survey:
        return self.method.survey(self.model, self.batch)

    @cached_property
    def base(self) -> np.ndarray:
        return nll_by_text(self.model, self.batch)

    @cached_property
    def zero_nll(self) -> np.ndarray:
        return self.nll(self.zero)

    def nll(self, edit: SiteEditBase) -> np.ndarray:
        with self.model.edited(edit):
            return nll_by_text(self.model, self.batch)

    def ratio(self, nll: np.ndarray) -> Interval:
        """Perplexity relative to the unedited network, with an interval over texts."""
        return bootstrap_ratio(nll, self.base)

    def mean_edit(self, texts: Sequence[str] | Batch) -> SiteEdit:
        """The same entries set to their mean over `texts`."""
        values = self.model.read(self.method.encode(self.model, texts), self.site, positions=FIRST)[self.site]
        leaf = self.zero.leaves()[0]
        mean = values[:, self.channels].double().mean(0).float()
        return replace(leaf, operator=type(leaf.operator)(mean))  # type: ignore[call-arg]

    @cached_property
    def ordinary(self) -> list[int]:
        """Channels that are massive in no text, at the edited layer; largest at the first token first, by mean."""
        massive = {item.channel for item in self.survey.found if item.layer == self.layer} | set(self.channels)
        rows = self.model.read(self.batch, self.site, positions=FIRST)[self.site].abs().mean(0)
        return [int(channel) for channel in rows.argsort(descending=True) if int(channel) not in massive]

    def values(self, sites: Sequence[str], positions: str, channel: int) -> np.ndarray:
        """One channel at one token of each text: [site, text] float64."""
        acts = self.model.read(self.batch, list(sites), positions=positions)
        return np.stack([acts[site][:, channel].double().numpy() for site in sites])


def random_entries(bench: Bench, seed: int) -> SiteEdit:
    """As many channels as the massive ones, drawn among those that are massive in no text, set to zero."""
    drawn = np.random.default_rng(seed).choice(sorted(bench.ordinary), size=len(bench.channels), replace=False)
    return zero_ablate(bench.site, FIRST, features=tuple(int(channel) for channel in drawn))


def random_removal(bench: Bench, seed: int) -> SiteEdit:
    """A vector of the length that `zero` takes away, in a random direction, taken away at the same token."""
    assert bench.model.width is not None
    drawn = torch.randn(bench.model.width, generator=torch.Generator().manual_seed(seed))
    length = float(np.linalg.norm([entry.mean for entry in bench.entries]))
    return add(bench.site, -length * drawn / drawn.norm(), FIRST)


def ratio_over_seeds(differences: Sequence[np.ndarray]) -> Interval:
    """exp of the mean difference of log-perplexity, with an interval over seeds."""
    found = interval_over_seeds([float(difference.mean()) for difference in differences])
    return Interval(*(float(np.exp(part)) for part in (found.value, found.low, found.high)))


def largest_at(bench: Bench, positions: str) -> int:
    """The ordinary channel with the largest mean magnitude at some positions."""
    rows = bench.model.read(bench.batch, bench.site, positions=positions)[bench.site].abs().mean(0)
    return max(bench.ordinary, key=lambda channel: float(rows[channel]))


def onsets(bench: Bench, channel: int) -> list[int]:
    """The first layer of each text at which a channel is massive at the first token; the last layer where none is."""
    first, never = selected(bench.batch, FIRST), bench.model.layers - 1
    layers: dict[int, int] = {}
    for item in bench.survey.found:
        if item.channel == channel and place_of(item) in first:
            layers[item.example] = min(item.layer, layers.get(item.example, never))
    return [layers.get(text, never) for text in range(len(bench.batch))]


def variation(values: np.ndarray) -> float:
    return float(values.std() / max(abs(values.mean()), 1e-12))


def variation_ratio(above: np.ndarray, below: np.ndarray, seed: int = 0) -> Interval:
    """Ratio of two coefficients of variation over the same texts, with a bootstrap interval over texts."""
    chosen = np.random.default_rng(seed).integers(0, len(above), size=(RESAMPLES, len(above)))
    ratios = [variation(above[rows]) / max(variation(below[rows]), 1e-12) for rows in chosen]
    low, high = np.quantile(ratios, [0.025, 0.975])
    return Interval(variation(above) / max(variation(below), 1e-12), float(low), float(high))


def place_of(item: Any) -> tuple[int, int]:
    return item.example, item.position
