"""`optrode read MODEL DATA --to DIR`: a harvest from the command line, and a store as a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import BadInput
from . import common

if TYPE_CHECKING:
    from ..store import Store


def harvest(
    model: str, data: list[str] | None, file: Path | None, to: str, sites: list[str], as_json: bool, **options: Any
) -> None:
    """Harvest, print what there is now, and say how to go on where it was stopped."""
    from ..store import harvest as run

    given = [*(data or []), *([str(file)] if file is not None else [])]
    if len(given) != 1:
        raise BadInput("--to takes one file or folder of data: optrode read MODEL DATA --to DIR")
    host = common.load_model(model)
    try:
        store = run(host, given[0], sites, to=to, **options)
    except KeyboardInterrupt as stop:
        common.note(f"optrode: stopped: {stop}")
        raise typer.Exit(130) from stop
    show(store, as_json)


def show(store: Store, as_json: bool) -> None:
    if as_json:
        common.print_json(info(store))
        return
    common.console().print(table(store))
    common.note(says(store))


def says(store: Store) -> str:
    """One line: how much of what, how large, and whether it is all there."""
    size, files = store.nbytes / 2**20, len(store.shards)
    state = "" if store.complete else "; not complete: the same optrode read goes on"
    return (
        f"{len(store):,} {store.unit}s of {store.origin['model']} in {files} shards, {size:,.1f} MiB, "
        f"kept as {store.recipe['dtype']}{state}"
    )


def info(store: Store) -> dict[str, Any]:
    """What a store is, as plain values."""
    worst = store.rounding().groupby("site").max() if store.shards else None
    sites = [
        {**site.as_json(), **({} if worst is None else worst.loc[site.address].to_dict())}
        for site in map(store.site, store.sites)
    ]
    return {
        "where": store.storage.where, "rows": len(store), "unit": store.unit, "complete": store.complete,
        "shards": len(store.shards), "bytes": store.nbytes, "hash": store.hash, "origin": store.origin,
        "made": store.made, "recipe": {**store.recipe, "sites": sites},
    }  # fmt: skip


def table(store: Store) -> Any:
    from rich.table import Table

    shown = Table(box=None, pad_edge=False)
    shown.add_column("site")
    for title in ("row", "kept as", "largest rounding error", "relative"):
        shown.add_column(title, justify="right")
    for site in info(store)["recipe"]["sites"]:
        row = ", ".join(f"{name} {size}" for name, size in zip(site["axes"], site["shape"], strict=False))
        kept = site["kept"] + (" and scales" if site["scaled"] else "")
        shown.add_row(
            site["address"], row or "a number", kept, f"{site.get('max_abs', 0):.3g}",
            f"{site.get('relative_rms', 0):.1e}",
        )  # fmt: skip
    return shown
