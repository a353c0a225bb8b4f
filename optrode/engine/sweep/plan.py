"""Plan before a sweep: how many patches, how much of the network they run, and about how long it takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from torch import Tensor

from ...host import Host
from ...messages import bytes_text
from ...metrics import Metric
from ...positions import Positions
from ..planning.like import like
from ..planning.rate import rate
from ..told import Told, takes_text
from .cells import Cell
from .sweeping import TOKENS_PER_FORWARD, Ready, Sweep, job_of
from .way import COLUMNS, FORWARDS, Ground, way_for


@dataclass(frozen=True, repr=False)
class SweepPlan(Told):
    """What a sweep will do, known after the base and the donor of each example have run.

    `cells` is the size of the map, `patches` those of them that can change anything and run. `block_tokens` is how many
    tokens go through a block in all, `naive` what one whole forward for each patch would take. `way` is how the first
    example's patches run, `memory` what is held beside the network. `seconds` is an estimate, None where no made-up
    input runs.
    """

    what: ClassVar[str] = "sweep"
    model: str
    examples: int
    cells: int
    patches: int
    way: str
    why: str
    block_tokens: int
    naive: int
    memory: int
    seconds: float | None
    basis: str

    def lines(self) -> list[tuple[str, str]]:
        """What is printed: a name and a value a line."""
        share = self.block_tokens / self.naive if self.naive else 0.0
        return [
            ("cells", f"{self.cells:,} in {self.examples:,} example{'s' if self.examples != 1 else ''}"),
            ("patches", f"{self.patches:,}; base and donor are equal in the others, whose effect is exactly 0"),
            ("way", f"{self.way}{f', since {self.why}' if self.why else ''}"),
            ("runs", f"{self.block_tokens:,} tokens through a block, {share:.0%} of a forward for each patch"),
            ("in memory", f"about {bytes_text(self.memory)}"),
            ("takes", takes_text(self.seconds, self.basis)),
        ]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def plan_sweep(
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
) -> SweepPlan:
    """What `optrode.sweep` with the same arguments will do. Base and donor run once each; no patch does.

    Which way is right for the network is measured where it is not known yet, on at most three patches. Raises what
    `sweep` raises before its patches run.
    """
    job = job_of(host, base, donor, sites, metric, each, positions, template, system, tokens_per_forward)
    cells = patches = tokens = naive = memory = 0
    found: tuple[str, str] | None = None
    for example in job.examples:
        ready = job.ready(example)
        found = found or _way(job, ready)
        width = example.width or 1
        cells, patches = cells + ready.count, patches + len(ready.cells)
        naive += len(ready.cells) * max(1, job.host.layers) * width
        tokens += sum(_tokens(job.host, cell, width, found[0]) for cell in ready.cells)
        memory = max(memory, _held(job, ready))
    way, why = found or (FORWARDS, "")
    seconds, basis = _seconds(job, tokens)
    return SweepPlan(
        job.host.name, len(job.examples), cells, patches, way, why, tokens, naive, memory, seconds, basis
    )  # fmt: skip


def _way(job: Sweep, ready: Ready) -> tuple[str, str]:
    if ready.why or not ready.cells:
        return FORWARDS, ready.why
    ground = Ground(job.host, ready.example, ready.target, ready.base, ready.values, job.tokens)
    way = way_for(ground, ready.cells)[0]
    return way, "resuming gives other numbers in this network" if way == FORWARDS else ""


def _tokens(host: Host, cell: Cell, width: int, way: str) -> int:
    """Tokens that one patch sends through blocks: from its block on, and from its first column on where it may."""
    layers = max(1, host.layers)
    if way == FORWARDS:
        return layers * width
    # A patched block's output needs that block no more.
    first = (cell.site.layer or 0) + (cell.site.name == "out")
    return (layers - first) * (width - cell.start if way == COLUMNS else width)


def _held(job: Sweep, ready: Ready) -> int:
    """Bytes of what the base's run leaves, of both sides' values, and of the rows of one call."""
    base = ready.base
    streams = [call.stream for call in base.calls]
    kept = [*streams, *(tensor for pair in base.keys_values for tensor in pair), base.target]
    kept += [*base.values.values(), *ready.values.values()]
    rows = max((stream.nbytes // max(1, ready.example.width or 1) for stream in streams), default=0) * job.tokens
    return sum(tensor.nbytes for tensor in kept) + 4 * rows


def _seconds(job: Sweep, tokens: int) -> tuple[float | None, str]:
    first = job.examples[0]
    speed = rate(job.host, like(job.host, first.base), False)
    if speed is None or not tokens:
        return (None, "") if speed is None else (0.0, "")
    whole = tokens / max(1, job.host.layers)
    calls = max(1, round(whole / job.tokens))
    return speed.seconds([(1, max(1, round(whole / calls)))] * calls), speed.basis
