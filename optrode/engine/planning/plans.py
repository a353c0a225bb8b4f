"""A plan: what a read will keep, how it will run, and about how long it takes, to look at and to print."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...messages import bytes_text
from ..reading.results import Kept
from ..sizes import seconds_text
from .budget import FITS, REFUSED, SPILL

if TYPE_CHECKING:
    from rich.table import Table

# Sites that a printed plan lists.
_SHOWN = 8


@dataclass(frozen=True)
class Plan:
    """What a read will do, known before it runs.

    `sites` holds the exact shape, dtype and bytes of everything that is kept; `forwards` the rows and columns of each
    forward, `tokens` the prompt's own tokens in all of them and `padding` the columns that are none. `forward_bytes`
    (beside the network and what is kept) and `seconds` are estimates; None where no made-up input runs. `logits` is the
    number of columns whose logits are computed in a row. `verdict`: `fits`, `split` (into smaller forwards), `spill`
    (results go to disk) or `refused`, with the reason in `why`. `memory` is the most that is taken beside the network.
    """

    model: str
    sites: tuple[Kept, ...]
    forwards: tuple[tuple[int, int], ...]
    tokens: int
    padding: int
    layers_run: int
    layers_skipped: int
    head: bool
    logits: int
    reduction: str
    budget: int | None
    verdict: str
    why: str
    forward_bytes: int | None
    memory: int
    disk: int
    seconds: float | None
    basis: str

    @property
    def nbytes(self) -> int:
        """Bytes of all results, exact."""
        return sum(site.nbytes for site in self.sites)

    @property
    def bytes_by_site(self) -> dict[str, int]:
        """Bytes of each site's result, exact."""
        return {site.site: site.nbytes for site in self.sites}

    def rows(self) -> list[tuple[str, str]]:
        """What is printed: a name and a value a line."""
        count = len(self.forwards)
        largest = max(self.forwards, key=lambda size: size[0] * max(1, size[1]), default=(0, 0))
        runs = f"{count} forward{'s' if count > 1 else ''}"
        if largest[1]:
            runs += f", {self.tokens} tokens and {self.padding} of padding; the largest {largest[0]} x {largest[1]}"
        else:
            runs += f" of {largest[0]} rows"
        about = "not known: no made-up input runs"
        on_disk = f", {bytes_text(self.disk)} on disk" if self.disk else ""
        return [
            ("runs", runs),
            *self._parts(),
            *([("reduced", self.reduction)] if self.reduction else []),
            ("results", f"{bytes_text(self.nbytes)} of {len(self.sites)} sites (exact)"),
            ("a forward", about if self.forward_bytes is None else f"about {bytes_text(self.forward_bytes)} more"),
            (
                "in all",
                f"about {bytes_text(self.memory)} in memory{on_disk}",
            ),
            ("takes", about if self.seconds is None else f"about {seconds_text(self.seconds)} ({self.basis})"),
            *([("budget", self._budget_text())] if self.budget is not None else []),
        ]

    def _parts(self) -> list[tuple[str, str]]:
        if not self.layers_run + self.layers_skipped:
            return [("layers", "not known: the network runs as a whole")]
        return [("layers", f"{self.layers_run} run, {self.layers_skipped} skipped"), ("head", self._head_text())]

    def _head_text(self) -> str:
        if not self.head:
            return "not run; no logits, no key-value cache"
        columns = f"for {self.logits} token{'s' if self.logits != 1 else ''} of a row" if self.logits else "run"
        return f"{'logits ' if self.logits else ''}{columns}; no key-value cache"

    def _budget_text(self) -> str:
        assert self.budget is not None
        done = {FITS: "fits", SPILL: "spills to disk", REFUSED: "refused"}.get(self.verdict, "is split")
        return f"{bytes_text(self.budget)}: {done}" + (f"; {self.why}" if self.why else "")

    def __str__(self) -> str:
        lines = [f"Plan of a read of {self.model}"]
        lines += [f"  {name + ':':<11}{value}" for name, value in self.rows()]
        lines += [f"  {site.site}: {_shape(site)}, {bytes_text(site.nbytes)}" for site in self.sites[:_SHOWN]]
        if len(self.sites) > _SHOWN:
            lines.append(f"  and {len(self.sites) - _SHOWN} more")
        return "\n".join(lines)

    __repr__ = __str__

    def __rich__(self) -> Table:
        from rich.markup import escape as plain
        from rich.table import Table

        table = Table(
            box=None, show_header=False, pad_edge=False, title=f"plan: {plain(self.model)}", title_justify="left"
        )
        for name, value in self.rows():
            style = "red" if name == "budget" and self.verdict == REFUSED else ""
            table.add_row(f"[bold]{name}[/]", plain(value), style=style)
        for site in self.sites[:_SHOWN]:
            table.add_row(plain(site.site), f"{plain(_shape(site))}, {bytes_text(site.nbytes)}", style="dim")
        if len(self.sites) > _SHOWN:
            table.add_row("", f"and {len(self.sites) - _SHOWN} more", style="dim")
        return table

    def _repr_html_(self) -> str:
        from ...notebook.plans import read_plan

        return read_plan(self)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        names = (
            "model", "tokens", "padding", "layers_run", "layers_skipped", "head", "logits", "reduction", "nbytes",
            "budget", "verdict", "why", "forward_bytes", "memory", "disk", "seconds", "basis",
        )  # fmt: skip
        sites = {
            site.site: {
                "axes": list(site.axes), "shape": list(site.shape), "dtype": _dtype(site), "bytes": site.nbytes,
            }
            for site in self.sites
        }  # fmt: skip
        plain = {name: getattr(self, name) for name in names}
        return {**plain, "forwards": [list(size) for size in self.forwards], "sites": sites}


def _shape(site: Kept) -> str:
    sizes = ", ".join(f"{name} {size}" for name, size in zip(site.axes, site.shape, strict=True))
    return f"[{sizes}] {_dtype(site)}"


def _dtype(site: Kept) -> str:
    return str(site.dtype).removeprefix("torch.")
