"""`optrode store info|verify|repair DIR`: what a store holds, whether it is whole, and making it whole again."""

from __future__ import annotations

import typer

from . import common

DIR_HELP = "A folder, or an fsspec URL such as s3://bucket/folder."


def register(app: typer.Typer) -> None:
    store = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", add_completion=False)
    app.add_typer(
        store, name="store",
        help="Activation stores, as optrode read --to writes them. Example: [bold]optrode store info acts[/]",
    )  # fmt: skip
    _info(store)
    _verify(store)
    _repair(store)


def _info(app: typer.Typer) -> None:
    @app.command("info")
    def info(where: str = typer.Argument(..., metavar="DIR", help=DIR_HELP), as_json: bool = common.Json) -> None:
        """Say what a store holds: sites, rows, dtypes, rounding errors; with --json all settings too.

        Example: [bold]optrode store info acts[/]
        """
        from ..store import open
        from .harvesting import show

        show(open(where), as_json)


def _verify(app: typer.Typer) -> None:
    @app.command("verify")
    def verify(where: str = typer.Argument(..., metavar="DIR", help=DIR_HELP), as_json: bool = common.Json) -> None:
        """Compare every byte with its checksum; names shard and site of each damage, and exits with 1 if there is one.

        Example: [bold]optrode store verify acts[/]
        """
        from ..store.verify import verify as find

        faults = find(where)
        if as_json:
            common.print_json({"faults": [vars(fault) for fault in faults]})
        else:
            typer.echo("\n".join(map(str, faults)) if faults else "no damage")
        if faults:
            raise typer.Exit(1)


def _repair(app: typer.Typer) -> None:
    @app.command("repair")
    def repair(
        where: str = typer.Argument(..., metavar="DIR", help=DIR_HELP),
        model: str | None = typer.Option(None, "--model", "-m", help="Model; by default the one that was harvested."),
        data: str | None = typer.Option(None, help="Data; by default where it was when the store was harvested."),
        drop: bool = typer.Option(False, "--drop", help="Drop what is damaged and harvest nothing."),
        as_json: bool = common.Json,
    ) -> None:
        """Drop damaged shards and harvest them again.

        Example: [bold]optrode store repair acts[/]
        """
        from ..store import open
        from ..store.verify import repair as mend
        from .harvesting import counted, info, says

        done = mend(where)
        if not drop and not done.store.complete:
            host = common.load_model(model or str(done.store.origin["model"]))
            mend(where, host, data)
        store = open(where)
        if as_json:
            faults = [vars(fault) for fault in done.faults]
            common.print_json({"faults": faults, "dropped": done.dropped, "store": info(store)})
            return
        typer.echo("\n".join([*map(str, done.faults), f"{counted(len(done.dropped), 'shard')} dropped"]))
        common.note(says(store))
