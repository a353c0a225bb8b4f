"""Plan before a harvest: how many rows and shards, bytes on disk and in memory, and about how long it takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from os import PathLike
from typing import Any, ClassVar

import torch

from ..batches import Batch
from ..engine.planning.like import like
from ..engine.planning.plan import plan as plan_read
from ..engine.planning.rate import rate
from ..engine.progress import Amount
from ..engine.told import Told, takes_text
from ..host import Host
from ..messages import bytes_text
from ..positions import Positions
from .documents import Data
from .examples import Cursor, Example, batch_of, pixels_of
from .layout import ShardLayout, StoredSite
from .planning import Coming, ShardPlan, next_shard
from .prepare import TOKENS_PER_FORWARD, Prepared, prepare
from .receipts import STORE
from .recipe import Recipe, compare
from .run import receipts_in
from .storage import storage_at


@dataclass(frozen=True, repr=False)
class HarvestPlan(Told):
    """What a harvest will write, known before it runs. Counts and bytes of values are exact; times are estimates.

    `rows` are those of the store, `tokens` all that run through the network and `padding` the places that are none.
    `rows_done` are in the store already. `disk` is the bytes of values (the tables beside them take a few per row),
    `memory` those of the largest shard, which is held while it is made. `free` is the room there is, None where nobody
    knows. `seconds` is None where no made-up input runs.
    """

    what: ClassVar[str] = "harvest"
    model: str
    sites: int
    unit: str
    rows: int
    rows_done: int
    shards: int
    examples: int
    forwards: int
    tokens: int
    padding: int
    dtype: str
    disk: int
    memory: int
    free: int | None
    layers_run: int
    layers_skipped: int
    head: bool
    seconds: float | None
    basis: str

    def lines(self) -> list[tuple[str, str]]:
        """What is printed: a name and a value a line."""
        layers = "not known: the network runs as a whole"
        if self.layers_run + self.layers_skipped:
            layers = f"{self.layers_run} run, {self.layers_skipped} skipped; head {'run' if self.head else 'not run'}"
        done = f", {self.rows_done:,} of them are there" if self.rows_done else ""
        room = f"; {bytes_text(self.free)} are free" if self.free is not None else ""
        return [
            ("rows", f"{self.rows:,} {self.unit}s of {self.examples:,} examples at {self.sites} sites{done}"),
            ("shards", f"{self.shards:,}, kept as {self.dtype}"),
            ("on disk", f"{bytes_text(self.disk)} of values (exact){room}"),
            ("in memory", f"{bytes_text(self.memory)}, the largest shard, beside the network and one forward"),
            ("runs", f"{self.forwards:,} forwards, {self.tokens:,} tokens and {self.padding:,} of padding"),
            ("layers", layers),
            ("takes", takes_text(self.seconds, self.basis)),
        ]

    @property
    def late(self) -> tuple[str, ...]:  # type: ignore[override]
        return () if self.fits else ("on disk",)

    @property
    def fits(self) -> bool:
        """Whether there is room on disk for what is missing, as far as is known."""
        return self.free is None or self.disk * (1 - self.rows_done / max(1, self.rows)) <= self.free

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "fits": self.fits}


def plan_harvest(
    model: Host,
    data: Data,
    sites: str | list[str] = "layers.*.out",
    *,
    to: str | PathLike[str] | None = None,
    dtype: torch.dtype | str | None = None,
    tokens: int | None = None,
    positions: str | Positions | None = None,
    context: int | None = None,
    template: str | None = None,
    system: str | None = None,
    column: str | None = None,
    shard_rows: int | None = None,
    tokens_per_forward: int = TOKENS_PER_FORWARD,
) -> HarvestPlan:
    """What `optrode.harvest` with the same arguments will do. The data is tokenised, but does not run.

    With `to`, what is there already is taken into account, and the room on its disk. Without `tokens` all data is gone
    through once, which takes as long as tokenising it. Raises what `harvest` raises before it runs.
    """
    prepared = prepare(
        model, data, sites, dtype=dtype, tokens=tokens, positions=positions, context=context, template=template,
        system=system, column=column, shard_rows=shard_rows, tokens_per_forward=tokens_per_forward,
    )  # fmt: skip
    done, free = _at(to, prepared.recipe)
    known = _Sum.of(prepared)
    left = [size for number, part in enumerate(known.forwards) if number not in done for size in part]
    layers_run, layers_skipped, head, seconds, basis = _time(model, prepared, known.first, left)
    return HarvestPlan(
        model=model.name,
        sites=len(prepared.recipe.sites),
        unit=prepared.feed.unit,
        rows=known.rows,
        rows_done=sum(done.values()),
        shards=len(known.forwards),
        examples=known.examples,
        forwards=sum(map(len, known.forwards)),
        tokens=known.tokens,
        padding=known.places - known.tokens,
        dtype=prepared.recipe.entries["dtype"],
        disk=known.disk,
        memory=known.largest,
        free=free,
        layers_run=layers_run,
        layers_skipped=layers_skipped,
        head=head,
        seconds=seconds,
        basis=basis,
    )


class _Sum:
    """All shards of a harvest, added up; `forwards` are the rows and tokens of each forward of each shard."""

    def __init__(self, sites: list[StoredSite], first: Example):
        self.sites, self.first = sites, first
        self.rows = self.examples = self.tokens = self.places = self.disk = self.largest = 0
        self.forwards: list[list[tuple[int, int]]] = []

    @classmethod
    def of(cls, prepared: Prepared) -> _Sum:
        entries, found = prepared.recipe.entries, None
        with Amount("counting", entries["tokens"], f"{prepared.feed.unit}s") as bar:
            for plan in _shards(prepared):
                found = found or cls(prepared.recipe.sites, plan.examples[0])
                found.add(plan)
                bar.add(plan.rows)
        assert found is not None, "a feed without examples is refused by its trial"
        return found

    def add(self, plan: ShardPlan) -> None:
        sizes = [(len(numbers), max(plan.examples[number].length for number in numbers)) for numbers in plan.forwards]
        size = ShardLayout.of(self.sites, plan.rows, len(sizes)).size
        self.forwards.append(sizes)
        self.rows += plan.rows
        self.examples += len(plan.examples)
        self.tokens += plan.tokens
        self.places += sum(rows * width for rows, width in sizes)
        self.disk += size
        self.largest = max(self.largest, size)


def _shards(prepared: Prepared) -> Iterator[ShardPlan]:
    entries, cursor = prepared.recipe.entries, Cursor()
    coming, left = Coming(prepared.feed.starting(cursor)), entries["tokens"]
    while left is None or left > 0:
        plan = next_shard(coming, cursor, entries["shard_rows"], left, entries["tokens_per_forward"])
        if plan is None:
            return
        yield plan
        if plan.ends:
            return
        cursor, left = plan.next, None if left is None else left - plan.rows


def _at(to: str | PathLike[str] | None, recipe: Recipe) -> tuple[dict[int, int], int | None]:
    """Rows of the shards that are there, by their number, and the room there is."""
    if to is None:
        return {}, None
    storage = storage_at(to)
    names = storage.names()
    if STORE in names:
        compare(storage.where, Recipe.from_bytes(storage.read(STORE)), recipe)
    return {number: receipt.rows for number, receipt in receipts_in(storage, names).items()}, storage.free()


def _time(
    model: Host, prepared: Prepared, first: Example, forwards: list[tuple[int, int]]
) -> tuple[int, int, bool, float | None, str]:
    """Layers run and skipped, whether the head runs, seconds of all forwards and what they were measured on."""
    given: Any = batch_of(model, [first]) if first.picture is None else pixels_of(model, [first])
    one = plan_read(model, given, [site.address for site in prepared.recipe.sites])
    speed = rate(model, like(model, given), one.head)
    if speed is None:
        return one.layers_run, one.layers_skipped, one.head, None, ""
    sizes = forwards if isinstance(given, Batch) else [(rows, 0) for rows, _ in forwards]
    share = one.layers_run / model.layers if model.layers and one.layers_run else 1.0
    return one.layers_run, one.layers_skipped, one.head, speed.seconds(sizes, share), speed.basis
