"""Statistics of a network on data: each site's rows go to its accumulators the moment they are seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..engine.editing.edited import PREFIXES
from ..engine.mapping.trial import in_eval_mode
from ..engine.progress import Amount
from ..errors import NotSupported
from ..host import Host
from ..positions import Positions
from ..store.documents import documents_of
from ..store.examples import Cursor, Example, TextSettings
from ..store.feeds import Feed
from ..store.planning import Coming, ShardPlan, next_shard
from ..store.prepare import context_of, feed_of
from .choice import Wanted
from .feeding import Feeding
from .rows import WHERE, several
from .statistics import Statistics
from .token_mask import sink_mask

# Examples are put into forwards of like length within so many forwards.
_WINDOW = 32


def of_model(
    host: Host,
    data: Any,
    sites: str | Sequence[str],
    wanted: Sequence[Wanted],
    cross: Sequence[tuple[str, str]],
    positions: Positions | None,
    mask: str,
    *,
    tokens: int | None,
    context: int | None,
    template: str | None,
    system: str | None,
    column: str | None,
    tokens_per_forward: int,
) -> Statistics:
    _refuse_prefixes(host)
    documents = documents_of(data, column)
    settings = TextSettings(context_of(host, context), template, system, positions)
    feed = feed_of(host, documents, sites, positions, settings)
    with in_eval_mode(host.module):
        stored = feed.trial("own")
        feeding = Feeding(stored, wanted, cross)
        vectors = {site.address for site in stored if site.axes == ("feature",)}
        known: dict[int, str] = {}
        with Amount("measuring", tokens, several(feed.unit)) as bar:
            for plan, first in _plans(feed, tokens, tokens_per_forward):
                for numbers in plan.forwards:
                    forward = _Forward(feed, plan, numbers, first)
                    _run(feed, forward, feeding, vectors if mask == "usual" else None)
                    bar.add(int(forward.keep.sum()))
                _learn(known, host, plan.examples)
    info = {
        "model": host.name, "weights": dict(host.fingerprint), "data": [documents.name or f"list of {len(data)}"],
        "unit": feed.unit, "positions": str(positions) if positions else None, "mask": mask,
    }  # fmt: skip
    return feeding.statistics(info, known)


def _refuse_prefixes(host: Host) -> None:
    if any(prefix.host.module is host.module and not prefix.over for prefix in PREFIXES.get()):
        raise NotSupported("an active edit puts tokens in front of prompts, which data does not get: leave its block")


def _plans(feed: Feed, tokens: int | None, tokens_per_forward: int) -> Iterator[tuple[ShardPlan, int]]:
    """Portions of the data with their forwards, and the number of the first example of each."""
    coming, cursor, left, first = Coming(feed.starting(Cursor())), Cursor(), tokens, 0
    while left is None or left > 0:
        plan = next_shard(coming, cursor, _WINDOW * tokens_per_forward, left, tokens_per_forward)
        if plan is None:
            break
        yield plan, first
        if plan.ends:
            break
        first, cursor = first + len(plan.examples), plan.next
        left = None if left is None else left - plan.rows


@dataclass
class _Forward:
    """One forward: what of its places counts, and where each comes from."""

    feed: Feed
    plan: ShardPlan
    numbers: list[int]
    first: int

    def __post_init__(self) -> None:
        self.examples = [self.plan.examples[number] for number in self.numbers]
        width = max(example.length for example in self.examples)
        shape = (len(self.examples), width)
        self.real, self.keep, self.special = (torch.zeros(shape, dtype=torch.bool) for _ in range(3))
        self.where = np.full((*shape, len(WHERE)), -1, np.int64)
        for row, column in enumerate(self.feed.columns(self.examples)):
            example, columns = self.examples[row], slice(column, column + self.examples[row].length)
            self.real[row, columns], self.keep[row, columns] = True, example.keep
            if example.special is not None:
                self.special[row, columns] = example.special
            self.where[row, columns] = _where(example, self.first + self.numbers[row])


def _where(example: Example, number: int) -> np.ndarray:
    """Document, example, position and token of each place of an example."""
    ids = example.ids.numpy() if example.ids is not None else np.full(example.length, -1)
    place = np.arange(example.length)
    return np.stack([np.full_like(place, example.document), np.full_like(place, number), place, ids], 1)


def _run(feed: Feed, forward: _Forward, feeding: Feeding, vectors: set[str] | None) -> None:
    """Run a forward; with `vectors`, the sites that sinks are looked for at, rows wait until all sites were seen."""
    held: dict[str, Tensor] = {}
    whole = feed.unit != "example"
    keep, where = (forward.keep, forward.where) if whole else (forward.keep[:, :1], forward.where[:, :1])
    if not whole:
        keep = torch.ones_like(keep)

    def put(address: str, h: Tensor) -> None:
        if vectors is None:
            feeding.take(address, h, keep, where)
        else:
            held[address] = h.detach().clone()

    feed.forward(forward.examples, put)
    if vectors is not None:
        usual = keep & ~(forward.special if whole else torch.zeros_like(keep))
        for address in vectors if whole else ():
            usual = usual & ~sinks_by_text(held[address], forward.real)
        for address, h in held.items():
            feeding.take(address, h, usual, where)
    feeding.done()


def sinks_by_text(h: Tensor, real: Tensor) -> Tensor:
    """`sink_mask` of each text by its own median, so that it does not matter which texts run together."""
    rows = [sink_mask(h[row : row + 1].cpu(), real[row : row + 1]) for row in range(len(h))]
    return torch.cat(rows)


def _learn(known: dict[int, str], host: Host, examples: Sequence[Example]) -> None:
    """The text of every token that came by."""
    if host.tokenizer is None:
        return
    for example in examples:
        if example.ids is not None:
            for token in set(example.ids.tolist()) - known.keys():
                known[token] = host.tokenizer.decode([token])
