"""A read within a budget: as it is where it fits, in smaller forwards, with its results on disk, or not at all.

A budget is the memory that a read may take beside the network: what it keeps, and what its largest forward needs while
it runs. What is kept is known to the byte; what a forward needs is an estimate (`footprint`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from ...batches import Batch
from ...errors import OverBudget
from ...host import Host
from ...messages import bytes_text
from ..few_logits import logit_columns
from ..reading.many_forwards import cuts
from ..reading.request import Request
from ..reading.results import Given, Kept
from ..reading.spill import free_bytes, spill_folder
from .footprint import Footprint, footprint
from .like import Like

FITS, SPLIT, SPILL, REFUSED = "fits", "split", "spill", "refused"


@dataclass(frozen=True)
class Schedule:
    """How a read will run: rows and columns of every forward, where results go, and the memory that takes.

    `forward_bytes` is what the largest forward needs while it runs, None where that is not known; `memory` is all that
    is taken beside the network. `verdict` is one of `fits`, `split`, `spill` and `refused`; `why` says the numbers.
    """

    parts: tuple[Tensor, ...]
    forwards: tuple[tuple[int, int], ...]
    tokens_per_forward: int
    verdict: str
    why: str
    forward_bytes: int | None
    memory: int
    disk: int = 0


def schedule(
    host: Host,
    request: Request,
    given: Given,
    like: Like,
    kept: Sequence[Kept],
    tokens_per_forward: int,
    budget: int | None,
    folder: str | Path | None = None,
) -> Schedule:
    """The fastest way to run a read that stays within `budget` bytes; without one, the way it runs by itself."""
    planner = _Planner(host, request, given, like, kept)
    first = planner.schedule(tokens_per_forward, spill=False)
    if budget is None or first.memory <= budget:
        return first
    if isinstance(given, Batch) and not request.whole:
        found = planner.smaller(tokens_per_forward, budget, folder)
        if found is not None:
            return found
    return planner.refused(first, budget, folder)


class _Planner:
    """Schedules of one read by tokens in a forward."""

    def __init__(self, host: Host, request: Request, given: Given, like: Like, kept: Sequence[Kept]):
        self._request, self._given, self._like, self._kept = request, given, like, kept
        self._total = sum(found.nbytes for found in kept)
        self._lengths = given.mask.sum(-1) if isinstance(given, Batch) else None
        few = logit_columns(host, given, request) if isinstance(given, Batch) else None
        self._logits = 0 if few is None else self._logit_bytes(host, len(few))
        if few is not None:
            request = replace(request, sites=[site for site in request.sites if site.address != "logits"])
        self._footprint: Footprint | None = footprint(host, request, like)

    def _logit_bytes(self, host: Host, columns: int) -> int:
        """Bytes of one row's logits in the columns that are computed, and of the copy that rows are picked from."""
        width = next(found.shape[-1] for found in self._kept if found.site == "logits")
        return 2 * columns * width * host.dtype.itemsize

    def schedule(self, tokens: int, spill: bool) -> Schedule:
        parts, forwards = self._forwards(tokens, spill)
        needs = self._forward_bytes(forwards)
        # In several forwards one site at a time is there twice, while it is put in its place.
        moving = max((self._part(found, forwards) for found in self._kept), default=0) if parts else 0
        memory = (0 if spill else self._total) + moving + (needs or 0)
        return Schedule(parts, forwards, tokens, FITS, "", needs, memory, self._total if spill else 0)

    def _forwards(self, tokens: int, spill: bool) -> tuple[tuple[Tensor, ...], tuple[tuple[int, int], ...]]:
        if not isinstance(self._given, Batch) or self._lengths is None or self._request.whole:
            return (), ((self._like.rows, self._like.tokens),)
        if not spill and self._given.ids.numel() <= tokens:
            return (), ((len(self._given), self._given.width),)
        parts = cuts(self._lengths, tokens)
        return tuple(parts), tuple((len(rows), int(self._lengths[rows[-1]])) for rows in parts)

    def _forward_bytes(self, forwards: Sequence[tuple[int, int]]) -> int | None:
        if self._footprint is None:
            return None
        sizes = set(forwards)
        return max((max(self._footprint.bytes(*size), size[0] * self._logits) for size in sizes), default=0)

    def _part(self, found: Kept, forwards: Sequence[tuple[int, int]]) -> int:
        """About how many bytes of a site the largest forward brings."""
        if found.axes[:2] == ("example", "token"):
            share = max(rows * width for rows, width in forwards) / max(1, found.shape[0] * found.shape[1])
        else:
            share = max(rows for rows, _ in forwards) / max(1, self._like.rows)
        return int(found.nbytes * min(1.0, share))

    def smaller(self, tokens: int, budget: int, folder: str | Path | None) -> Schedule | None:
        """Smaller forwards, or results on disk where they do not fit; None if that does not help either."""
        for verdict in (SPLIT, SPILL):
            spill = verdict == SPILL
            if spill and not self._can_spill(folder):
                break
            for size in self._sizes(tokens):
                found = self.schedule(size, spill)
                if found.memory <= budget:
                    return replace(found, verdict=verdict, why=self._why(found, budget))
        return None

    def _sizes(self, tokens: int) -> list[int]:
        """Tokens in a forward to try: halves, down to those of the longest row, which cannot be split."""
        assert self._lengths is not None
        longest = max(1, int(self._lengths.max()))
        sizes = [min(tokens, max(1, int(self._lengths.sum())))]
        while sizes[-1] > longest:
            sizes.append(max(longest, sizes[-1] // 2))
        return sizes

    def _can_spill(self, folder: str | Path | None) -> bool:
        elsewhere = self._request.device is not None and self._request.device.type != "cpu"
        return not elsewhere and free_bytes(spill_folder(folder)) > self._total

    def _why(self, found: Schedule, budget: int) -> str:
        if found.disk:
            return f"results of {bytes_text(self._total)} do not fit in {bytes_text(budget)}, so they go to disk"
        count, tokens = len(found.forwards), found.tokens_per_forward
        return f"{count} forwards of at most {tokens} tokens stay within {bytes_text(budget)}"

    def refused(self, first: Schedule, budget: int, folder: str | Path | None) -> Schedule:
        """Why nothing fits, with what to do; the schedule is that of the read without a budget."""
        splits = isinstance(self._given, Batch) and not self._request.whole
        on_disk = splits and self._can_spill(folder)
        least = self.schedule(self._sizes(first.tokens_per_forward)[-1], on_disk) if splits else first
        forward = "" if least.forward_bytes is None else f", one forward about {bytes_text(least.forward_bytes)}"
        if on_disk:
            needs, advice = f"with its results on disk{forward}", ["shorter prompts"]
        else:
            needs, advice = f"results {bytes_text(self._total)}{forward}", ["fewer sites or positions"]
            if self._request.reduction is None:
                advice.append("reduce= on the fly")
            advice.append("spill= a folder with more space" if splits else "prompts or a Batch, which can be split")
        return replace(
            first,
            verdict=REFUSED,
            why=f"this read needs {bytes_text(least.memory)} at the least ({needs}) and its budget is "
            f"{bytes_text(budget)}: try {', '.join(advice)} or a larger budget",
        )


def refuse(found: Schedule) -> None:
    """Raise `OverBudget` for a schedule that was refused."""
    if found.verdict == REFUSED:
        raise OverBudget(found.why)
