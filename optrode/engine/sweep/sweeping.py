"""Exact sweeps: every single patch by itself, and what it does to the answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from ...errors import BadInput, NotSupported
from ...host import Host, SiteInfo
from ...maps import Map
from ...metrics import Custom, Metric
from ...positions import Positions
from ..generating.policies import refuse_policy
from ..progress import track
from ..twin import uncompiled
from .assemble import Result, assembled, position_names, token_labels
from .cells import EXAMPLE, Cell, Grid, cells_of, default_each, grid_of, selected_columns
from .donors import means_of, put_in_place
from .examples import Example, Target, pairs, reference_of, target_of
from .finish import plain_head
from .record import Recording, record
from .way import FORWARDS, Ground, record_base, results, way_for, why_forwards

# Tokens in one call of a block: enough to keep the processor busy, few enough for memory.
TOKENS_PER_FORWARD = 2048


def sweep(
    host: Host,
    base: Any,
    donor: Any,
    sites: str | Sequence[str] = "layers.*.out",
    *,
    metric: Metric | Callable[[Tensor], Tensor],
    each: str | Sequence[str] | None = None,
    positions: str | Positions = "all",
    template: str | None = None,
    system: str | None = None,
    tokens_per_forward: int = TOKENS_PER_FORWARD,
) -> Map:
    """Patch every cell by itself into the run of `base` and measure the answer: a map of exact effects.

    `base` and `donor`: prompts, lists of as many prompts, pictures, batches or tensors; each base and its donor have
    the same number of tokens. In a cell, the base's activation is replaced by the donor's. `donor` may also be
    `"zero"`, `"mean"` (of the base prompts' tokens), a number, a dictionary of tensors by address, or an operator of
    `optrode.edits` such as `Scale` or `Replace`, which makes the new activation from the base's own.

    `each` names the axes that are taken apart besides the layer: `"position"`, `"head"`, `"feature"` or any other axis
    of the site, and `"example"` (left out, the mean over examples is given). By default `"head"` where the site has
    heads, else `"position"`. `positions` are the ones that are patched, together unless `each` has `"position"`.

    `metric` is one of `optrode.metrics` or a function of logits [row, position, vocabulary] that gives [row].

    Equal to one patched forward for each cell, within float tolerance. Cells where base and donor do not differ are not
    run and have exactly the base's value. The others run as a frontier: all rows go through the blocks together, each
    from its block and its first column on, in calls of at most `tokens_per_forward` tokens; where a network does not
    allow this, or edits are active, as batches of whole forwards (`map.notes["way"]` and `["why"]` say so).

    Memory: the base's stream at every block and its keys and values, and the stream of the rows of one call.

    Raises `BadInput` where lengths or axes do not fit, `UnknownSite`, `NotSupported`.
    """
    job = job_of(host, base, donor, sites, metric, each, positions, template, system, tokens_per_forward)
    host, examples = job.host, job.examples
    parts = [job.of(example) for example in (track(examples, "sweeping") if len(examples) > 1 else examples)]
    texts = token_labels(host, examples[0]) if len(examples) == 1 else ([], [])
    notes = {
        "sites": [sites] if isinstance(sites, str) else list(sites),
        "positions": str(positions),
        "donor": donor if isinstance(donor, str) and donor in ("zero", "mean") else "",
        "base_tokens": texts[0],
        "donor_tokens": texts[1],
        "model": host.name,
    }
    return assembled(host, parts, job.each, job.metric.unit or "value of the metric", notes)


def job_of(
    host: Host,
    base: Any,
    donor: Any,
    sites: str | Sequence[str],
    metric: Metric | Callable[[Tensor], Tensor],
    each: str | Sequence[str] | None,
    positions: str | Positions,
    template: str | None,
    system: str | None,
    tokens_per_forward: int,
) -> Sweep:
    """What the arguments of `sweep` mean, checked; nothing runs."""
    # Hooks in a compiled network would be ignored: what is swept is the network under it, with the same weights.
    host = uncompiled(host)
    refuse_policy(host, "a sweep")
    found = host.match(sites)
    for site in found:
        if site.port.read_only:
            raise NotSupported(f"{site.address} cannot be patched: {site.port.read_only}")
    metric = metric if isinstance(metric, Metric) else Custom(metric)
    apart = _each(host, found, each)
    examples = pairs(host, base, donor, template, system)
    return Sweep(host, found, donor, metric, apart, positions, tokens_per_forward, examples)


def _each(host: Host, sites: Sequence[SiteInfo], each: str | Sequence[str] | None) -> tuple[str, ...]:
    if each is None:
        return default_each(host, sites)
    named = tuple([each] if isinstance(each, str) else each)
    if "layer" in named:
        raise BadInput("layers are always taken apart: leave 'layer' out of `each`")
    if len(set(named)) < len(named):
        raise BadInput(f"an axis is named twice in {list(named)}: name each once")
    return named


@dataclass(frozen=True)
class Ready:
    """One example before its cells run: base and donor were recorded, and which cells can change anything is known.

    `donor` is None where new activations come from elsewhere; `values` are the new ones by site. `why` says why only
    whole forwards will do, where they will.
    """

    example: Example
    target: Target
    base: Recording
    donor: Recording | None
    values: dict[str, Tensor]
    grid: Grid
    cells: list[Cell]
    why: str

    @property
    def count(self) -> int:
        """How many cells the grid has, with those that cannot change anything."""
        return len(self.grid.where) * int(np.prod(self.grid.shape[2:], dtype=int))


@dataclass(frozen=True)
class Sweep:
    """What is the same for all examples."""

    host: Host
    sites: list[SiteInfo]
    donor: Any
    metric: Metric
    each: tuple[str, ...]
    positions: str | Positions
    tokens: int
    examples: list[Example]

    def ready(self, example: Example) -> Ready:
        """Two forwards, and from them the cells."""
        host = self.host
        target = target_of(host, example, self.metric)
        why = why_forwards(host, self.sites, target)
        base = record_base(host, example, self.sites, target, calls=not why)
        donor = self._donor_run(example, target)
        values = donor.values if donor is not None else self._put_in_place(example, base, target)
        columns = selected_columns(host, example, self.positions)
        apart = tuple(name for name in self.each if name != EXAMPLE)
        names = position_names(*token_labels(host, example))
        grid = grid_of(self.sites, apart, columns, names, base.values)
        cells = cells_of(host, example, self.sites, grid, columns, base.values, values)
        return Ready(example, target, base, donor, values, grid, cells, why)

    def of(self, example: Example) -> Result:
        """The values of one example."""
        ready = self.ready(example)
        host, base, grid, cells, why = self.host, ready.base, ready.grid, ready.cells, ready.why
        metric = self.metric.bound(host.tokenizer, example.number)
        reference = reference_of(example, ready.target, base.target)

        def measured(rows: Tensor, metric: Metric = metric) -> np.ndarray:
            return metric(rows, reference).detach().double().cpu().numpy()

        plain = float(measured(base.target)[0])
        filled = np.full(grid.shape, np.nan)
        for place in grid.where.values():
            filled[place] = plain
        some = metric.narrowed() if not why and plain_head(host, ready.target) is not None else None
        only, by_cell = some or (None, metric)
        ground = Ground(host, example, ready.target, base, ready.values, self.tokens, only)
        way, few = (FORWARDS, False) if why or not cells else way_for(ground, cells)
        # What was run to find the way is no part of the work.
        ground.ran = ground.tokens_run = 0
        for numbers, rows in results(ground, cells, way, few):
            for number, value in zip(numbers, measured(rows, by_cell), strict=True):
                filled[cells[number].place] = value
        if way == FORWARDS and cells and not why:
            why = "resuming gives other numbers in this network"
        whole = max(1, host.layers) * (example.width or 1)
        ends = plain, float(measured(ready.donor.target)[0]) if ready.donor is not None else None
        return Result(grid, filled, *ends, ready.count, len(cells), way, why, ground.tokens_run, whole)

    def _donor_run(self, example: Example, target: Any) -> Recording | None:
        if example.donor is None:
            return None
        return record(self.host, example.donor, self.sites, target)

    def _put_in_place(self, example: Example, base: Recording, target: Any) -> dict[str, Tensor]:
        means: dict[str, Tensor] = {}
        if isinstance(self.donor, str) and self.donor == "mean":
            means = means_of(self.host, self.examples, self.sites, target)
        return put_in_place(self.donor, self.sites, base, means)
