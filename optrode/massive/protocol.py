"""What the rows on massive activations share: one survey of all layers, and the entries that a network always has.

A *massive activation* is one number in one text. An *entry* is what a network has: a channel that is massive at one
kind of position (such as the first token) in most texts. Each text is judged by its own median, so that nothing here
depends on how texts are batched.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..batches import Batch
from ..encoding import Prompt
from ..engine.likelihood import token_logprobs
from ..engine.progress import track
from ..engine.reading.read import chunks
from ..errors import BadInput, NotFinite
from ..model import Model
from ..parts.method import Method
from ..positions import Positions
from ..stats import ABSOLUTE_THRESHOLD, RELATIVE_THRESHOLD, Massive, find_massive, largest_and_median, stream_norms

# All layers of this many tokens are in memory at once: 512 x 32 layers x 4096 channels are 270 MB in float32.
TOKENS_AT_ONCE = 512
LARGEST = 3


@dataclass(frozen=True)
class Survey:
    """Every layer's extremes over some texts.

    `largest`: [layer, text, 3] magnitudes, largest first; `median`: [layer, text] median magnitude of all channels and
    tokens of the text; `norm`: [layer, text] median norm of the text's tokens; all float32. `found`: every massive
    activation, by layer, text and magnitude.
    """

    layers: tuple[int, ...]
    largest: Tensor
    median: Tensor
    norm: Tensor
    found: tuple[Massive, ...]


@dataclass(frozen=True)
class Entry:
    """A channel that is massive at one kind of position, at the output of one layer.

    `share` of the selected tokens have it massive; `mean` and `deviation` (of the population) are over all of them.
    """

    layer: int
    channel: int
    positions: str
    share: float
    mean: float
    deviation: float


@dataclass(frozen=True)
class MassiveMethod(Method):
    """Base of methods that start from the entries of a network.

    absolute, relative: a value is massive above `absolute` and from `relative` times the median of its layer on.
    positions: the kinds of positions at which entries are looked for, each with means of its own.
    share: a channel counts when it is massive at this share of the tokens that a kind selects. The papers name channels
        and no rule; one half keeps out what is massive in few texts.
    template: `raw` (the papers'), `chat`, or None for what the model does by itself. What stands at the start of a
        text decides what the first token is.
    """

    absolute: float = ABSOLUTE_THRESHOLD
    relative: float = RELATIVE_THRESHOLD
    positions: tuple[str, ...] = ("first:1",)
    share: float = 0.5
    template: str | None = "raw"

    def __post_init__(self) -> None:
        if isinstance(self.positions, str):
            object.__setattr__(self, "positions", (self.positions,))
        if not self.positions:
            raise BadInput("no kind of position was given: name one such as first:1")
        for text in self.positions:
            Positions(text)
        if not 0 < self.share <= 1:
            raise BadInput(f"share {self.share} is no share of tokens: give one above 0 and up to 1")
        if not (self.absolute >= 0 and self.relative >= 0):
            raise BadInput("the thresholds `absolute` and `relative` must be numbers from 0 on")

    def encode(self, model: Model, texts: Sequence[Prompt] | Prompt | Batch) -> Batch:
        """Texts as a batch in the method's template; a batch as it is."""
        return texts if isinstance(texts, Batch) else model.encode(texts, template=self.template)

    def survey(self, model: Model, texts: Any, layers: Sequence[int] | None = None) -> Survey:
        """See `survey`, with the method's template and thresholds."""
        batch = self.encode(model, texts)
        return survey(model, batch, layers, absolute=self.absolute, relative=self.relative)

    def entries(self, model: Model, batch: Batch, surveyed: Survey) -> list[Entry]:
        """The entries of the first surveyed layer that has any; an empty list when none has.

        Reads that layer once more for the means: one forward up to it.
        """
        shares = self.shares(batch, surveyed.found)
        first = min((layer for layer, _, _ in shares), default=None)
        chosen = [(channel, kind, share) for (layer, channel, kind), share in shares.items() if layer == first]
        return [] if first is None else _with_means(model, batch, first, chosen)

    def shares(self, batch: Batch, found: Sequence[Massive]) -> dict[tuple[int, int, str], float]:
        """(layer, channel, positions) -> share of tokens at which it is massive, where that is enough."""
        shares: dict[tuple[int, int, str], float] = {}
        for kind in self.positions:
            chosen = selected(batch, kind)
            counts = Counter((item.layer, item.channel) for item in found if (item.example, item.position) in chosen)
            for (layer, channel), count in sorted(counts.items()):
                if count >= self.share * len(chosen):
                    shares[layer, channel, kind] = count / len(chosen)
        return shares


def survey(
    model: Model,
    batch: Batch,
    layers: Sequence[int] | None = None,
    *,
    absolute: float = ABSOLUTE_THRESHOLD,
    relative: float = RELATIVE_THRESHOLD,
) -> Survey:
    """The largest magnitudes, the median and all massive activations of the outputs of `layers` (None for all).

    Active edits are seen. Raises `UnknownSite` for a network without layout or a layer that it lacks, `NotFinite` where
    a layer overflows. Cost: one forward without head; 4 bytes x layers x width x `TOKENS_AT_ONCE` of memory.
    """
    wanted = ["layers.*.out"] if layers is None else [f"layers.{layer}.out" for layer in layers]
    sites = [site.address for site in model.match(wanted)]
    numbers = tuple(int(site.split(".")[1]) for site in sites)
    largest = torch.zeros(len(sites), len(batch), LARGEST)
    median, norm = torch.zeros(len(sites), len(batch)), torch.zeros(len(sites), len(batch))
    found: list[Massive] = []
    for rows, part in track(list(chunks(batch, TOKENS_AT_ONCE)), "looking for massive activations"):
        acts = model.read(part, sites)
        for place, (site, layer) in enumerate(zip(sites, numbers, strict=True)):
            h, mask = acts[site], part.mask.to(acts[site].device)
            if not bool(torch.isfinite(h[mask]).all()):
                raise NotFinite(f"{site} holds NaN or infinity: load {model.name} in float32")
            largest[place, rows], median[place, rows] = (value.cpu() for value in largest_and_median(h, mask, LARGEST))
            norm[place, rows] = torch.tensor(
                [stream_norms(h[i : i + 1], mask[i : i + 1])["median"] for i in range(len(h))]
            )
            found += _found(model, layer, h, part, rows.tolist(), absolute, relative)
    order = sorted(found, key=lambda item: (item.layer, item.example, -abs(item.value)))
    return Survey(numbers, largest, median, norm, tuple(order))


def selected(batch: Batch, positions: str) -> set[tuple[int, int]]:
    """The tokens that a selection means as (example, place in its own row). Raises `BadInput` when there is none."""
    mask = Positions(positions).in_prompt(batch)
    if not bool(mask.any()):
        raise BadInput(f"positions '{positions}' selected nothing in these texts")
    places = batch.position_ids
    return {(example, int(places[example, column])) for example, column in mask.nonzero().tolist()}


def nll_by_text(model: Model, batch: Batch) -> np.ndarray:
    """Mean negative log-probability of each text's own tokens given those before, nats; [text] float64.

    Padding, special tokens and a chat template's own text are not scored, nor is the first token of a row.
    """
    scored = Positions("content").in_prompt(batch) & (batch.mask.long().cumsum(-1) > 1)
    if not bool(scored.any(-1).all()):
        row = int((~scored.any(-1)).long().argmax())
        raise BadInput(f"text {row} has no token to score: each needs at least two")
    return np.array([-float(row.double().mean()) for row in token_logprobs(model, batch, scored)])


def _found(
    model: Model, layer: int, h: Tensor, part: Batch, rows: list[int], absolute: float, relative: float
) -> list[Massive]:
    """The massive activations of one layer, each text by its own median; `rows` are the texts' numbers."""
    mask, found = part.mask.to(h.device), []
    for place, example in enumerate(rows):
        one = slice(place, place + 1)
        for _, column, channel, value, median in find_massive(h[one], mask[one], absolute=absolute, relative=relative):
            token = model.tokenizer.decode([int(part.ids[place, column])]) if model.tokenizer else ""
            position = int(part.position_ids[place, column])
            found.append(Massive(layer, channel, example, position, token, value, median))
    return found


def _with_means(model: Model, batch: Batch, layer: int, chosen: list[tuple[int, str, float]]) -> list[Entry]:
    """Entries from (channel, positions, share), with mean and deviation over every token that a kind selects."""
    site, entries = f"layers.{layer}.out", []
    for kind in dict.fromkeys(kind for _, kind, _ in chosen):
        values = model.read(batch, site, positions=kind)[site].double()
        for channel, own, share in chosen:
            if own == kind:
                column = values[:, channel]
                mean, deviation = float(column.mean()), float(column.std(correction=0))
                entries.append(Entry(layer, channel, kind, share, mean, deviation))
    return entries
