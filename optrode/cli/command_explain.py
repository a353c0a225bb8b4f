"""`optrode explain FILE.edit`: what an edit does, in plain words."""

from __future__ import annotations

from pathlib import Path

import typer

from . import common


def register(app: typer.Typer) -> None:
    @app.command("explain")
    def explain(
        edits: list[Path] = typer.Argument(..., metavar="EDIT...", help="Edit files."),
        model: str | None = typer.Option(None, "--model", "-m", help="Say whether they fit this model. Loads it."),
        as_json: bool = common.Json,
    ) -> None:
        """Say what an edit does: at which site, by which formula, on which tokens, how strongly, fitted on what.

        Example: [bold]optrode explain best.edit[/]
        """
        from ..edits.file import load_edit

        loaded = [load_edit(path) for path in edits]
        host = common.load_model(model) if model is not None else None
        told = [edit.explain(host) for edit in loaded]
        if as_json:
            common.print_json({str(path): one.as_dict() for path, one in zip(edits, told, strict=True)})
            return
        for number, (path, one) in enumerate(zip(edits, told, strict=True)):
            if len(edits) > 1:
                typer.echo(f"{'' if number == 0 else chr(10)}# {path}")
            typer.echo(str(one))
