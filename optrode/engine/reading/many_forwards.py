"""A batch in several forwards of rows of like length, and their results as one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Protocol

from torch import Tensor

from ...activations import Activations
from ...batches import Batch
from ...host import Host
from ..axes import has_tokens
from ..progress import track
from .gather import is_single
from .one_forward import Sinks, one_forward
from .request import Request


def chunks(batch: Batch, tokens: int) -> Iterator[tuple[Tensor, Batch]]:
    """Parts of a batch with at most `tokens` tokens each, rows sorted by length, with their row numbers."""
    for rows in cuts(batch.mask.sum(-1), tokens):
        yield rows, batch.pick(rows)


def cuts(lengths: Tensor, tokens: int) -> list[Tensor]:
    """Row numbers of each part: sorted by length, at most `tokens` tokens in a part, padding included."""
    order = lengths.argsort(stable=True)
    sizes = lengths[order].tolist()
    parts, start = [], 0
    while start < len(sizes):
        stop = start + 1
        while stop < len(sizes) and sizes[stop] * (stop + 1 - start) <= tokens:
            stop += 1
        parts.append(order[start:stop])
        start = stop
    return parts


class Shelf(Protocol):
    """Where the results of several forwards come together."""

    def sinks(self, rows: Tensor) -> Sinks:
        """Where the sites of a forward of these rows of the batch go."""

    def tensors(self) -> dict[str, Tensor]:
        """The results by site, when all forwards have run."""


def many_forwards(
    host: Host, batch: Batch, request: Request, parts: Sequence[Tensor], shelf: Shelf, what: str = "reading activations"
) -> Activations:
    """Activations of a batch in one forward for each of `parts` (row numbers); values go to the shelf as they are seen.

    At any time one site of one forward is there twice.
    """
    experts: dict[str, Tensor] = {}
    with closing(track(parts, what)) as steps:
        for rows in steps:
            last = one_forward(host, batch.pick(rows), request, sinks=shelf.sinks(rows))
            for place, counts in last.tokens_by_expert.items():
                experts[place] = experts[place] + counts if place in experts else counts
    places = request.places(batch)
    single = is_single(places, batch)
    selected = {site.address: places is not None and has_tokens(site) for site in request.sites}
    axes = {site: _whole_axes(named, selected[site], single) for site, named in last.axes.items()}
    return Activations(
        shelf.tensors(), axes, batch, places, host.tokenizer, last.layers_run, last.layers_skipped, {}, experts
    )


def _whole_axes(axes: tuple[str, ...], selected: bool, single: bool) -> tuple[str, ...]:
    """A part may have one position in each row where the whole has not."""
    if not selected or "token" in axes:
        return axes
    return ("example" if single else "position", *axes[1:])
