"""`optrode diff A.edit B.edit`: what differs between two edits."""

from __future__ import annotations

from pathlib import Path

import typer

from . import common


def register(app: typer.Typer) -> None:
    @app.command("diff")
    def diff(
        first: Path = typer.Argument(..., help="An edit file."),
        second: Path = typer.Argument(..., help="Another one."),
        as_json: bool = common.Json,
    ) -> None:
        """Say what differs between two edits: sites, kinds, tokens, strengths, tensors, what they were fitted on.

        Tensors are compared by their cosine and their largest difference.

        Example: [bold]optrode diff monday.edit tuesday.edit[/]
        """
        from ..edits.differences import diff as compared
        from ..edits.file import load_edit

        names = (first.name, second.name) if first.name != second.name else (str(first), str(second))
        found = compared(load_edit(first), load_edit(second), names)
        if as_json:
            common.print_json(found.as_dict())
            return
        typer.echo(str(found))
