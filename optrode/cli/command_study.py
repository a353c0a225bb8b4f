"""`optrode study ID`: run a row's study and say whether its claims hold here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from . import common


def register(app: typer.Typer) -> None:
    @app.command("study")
    def study(
        name: str | None = typer.Argument(None, help="Id of a row, such as caa; without it, all studies are listed."),
        full: bool = typer.Option(False, "--full", help="The card's own size instead of the small one."),
        out: Path = typer.Option(Path("studies/results"), "--out", "-o", help="Folder for the result, ID.json."),
        as_json: bool = common.Json,
    ) -> None:
        """Run the smallest honest experiment for a published claim, with controls and seeds.

        Example: [bold]optrode study caa[/]
        """
        from ..studies import run_study, save_study, study_ids

        if name is None:
            common.print_json(study_ids()) if as_json else typer.echo("\n".join(study_ids()))
            return
        result = run_study(name, full=full, arguments=["study", name, *(["--full"] if full else [])])
        path = save_study(result, out)
        if as_json:
            common.print_json(result)
            return
        common.console().print(table(result))
        typer.echo(f"{name}: {result['verdict']} ({result['record']['seconds']:.0f} s); saved to {path}")
        if result["shrunk"]:
            typer.echo(f"smaller than the card asks for: {result['shrunk']}")


def table(result: dict[str, Any]) -> Any:
    from rich.table import Table

    shown = Table(title=result["title"], title_justify="left", show_lines=True)
    for title in ("claim", "baseline", "measured", "verdict"):
        shown.add_column(title)
    for finding in result["findings"]:
        mark = "" if finding["essential"] else " (beside)"
        shown.add_row(finding["claim"], finding["baseline"], finding["measured"], finding["verdict"] + mark)
    return shown
