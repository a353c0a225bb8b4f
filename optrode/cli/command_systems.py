"""`optrode systems [QUERY]`: the catalogue, and a search over it by words and meaning."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from . import common

if TYPE_CHECKING:
    from rich.table import Table


def register(app: typer.Typer) -> None:
    @app.command("systems")
    def systems(
        query: str | None = typer.Argument(None, help="What the system should do, in your words; or the id of a row."),
        family: str | None = typer.Option(None, "--family", help="One family, such as steering."),
        status: str | None = typer.Option(None, "--status", help="works, partial or planned."),
        limit: int = typer.Option(0, "--limit", "-n", help="Rows to show; 0 shows all, or 10 of a search."),
        as_json: bool = common.Json,
    ) -> None:
        """List the published systems that have a place here, how far each is, and what its study found.

        Example: [bold]optrode systems "make a model refuse less"[/]
        """
        from ..catalogue import systems as of_catalogue

        known = of_catalogue(family=family, status=status)
        one = next((system for system in known if system.id == query), None)
        found = known if query is None or one else of_catalogue(query, family=family, status=status)
        shown = [one] if one else list(found)[: limit or (10 if query else None)]
        if as_json:
            common.print_json([asdict(system) for system in shown])
        elif one:
            common.console().print(details(one))
        else:
            common.console().print(table(shown))
            counts = ", ".join(f"{count} {name}" for name, count in found.counts.items())
            typer.echo(f"{len(shown)} of {len(found)} systems shown ({counts}); optrode systems ID shows one whole")


def table(systems) -> Table:  # type: ignore[no-untyped-def]
    from rich.table import Table

    shown = Table(box=None, pad_edge=False)
    for title in ("system", "family", "status", "study", "what it is for"):
        shown.add_column(title, overflow="fold" if title == "what it is for" else "ellipsis", no_wrap=title == "system")
    for system in systems:
        shown.add_row(system.id, system.family, system.status, system.verdict or "-", _short(system.job))
    return shown


def details(system) -> str:  # type: ignore[no-untyped-def]
    """Everything that the catalogue knows about one system."""
    paper = f"arXiv {system.paper}" if system.paper else "no arXiv id"
    lines = [f"[bold]{system.id}[/] ({system.family}): {system.title}", paper, "", system.job, ""]
    lines.append(f"status: {system.status}" + (f" (no {', no '.join(system.missing)})" if system.missing else ""))
    if system.verdict:
        lines.append(f"study: {system.verdict}")
    lines += [f"use: {name}" for name in system.entry_points]
    return "\n".join(lines)


def _short(text: str, limit: int = 110) -> str:
    return text if len(text) <= limit else text[: limit - 1].rsplit(" ", 1)[0] + " ..."
