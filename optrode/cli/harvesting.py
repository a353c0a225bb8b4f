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

    given = _one(data, file)
    host = common.load_model(model)
    try:
        store = run(host, given, sites, to=to, **options)
    except KeyboardInterrupt as stop:
        common.note(f"optrode: stopped: {stop}")
        raise typer.Exit(130) from stop
    show(store, as_json)


def planned(
    model: str, data: list[str] | None, file: Path | None, to: str, sites: list[str], as_json: bool, **options: Any
) -> None:
    """Print what that harvest would do, and stop."""
    from ..store import plan_harvest

    given = _one(data, file)
    plan = plan_harvest(common.load_model(model), given, sites, to=to, **options)
    common.print_json(plan.as_dict()) if as_json else common.console().print(plan)


def _one(data: list[str] | None, file: Path | None) -> str:
    given = [*(data or []), *([str(file)] if file is not None else [])]
    if len(given) != 1:
        raise BadInput("--to takes one file or folder of data: optrode read MODEL DATA --to DIR")
    return given[0]


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
        f"{counted(len(store), store.unit)} of {store.origin['model']} in {counted(files, 'shard')}, {size:,.1f} MiB, "
        f"kept as {store.recipe['dtype']}{state}"
    )


def counted(count: int, what: str) -> str:
    """`1 shard`, `2 shards`, `2 patches`."""
    from ..stats.rows import in_words

    return in_words(count, what)


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
