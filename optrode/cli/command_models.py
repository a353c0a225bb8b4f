"""`optrode models`: the models that have a short name."""

from __future__ import annotations

from dataclasses import asdict

import typer

from . import common


def register(app: typer.Typer) -> None:
    @app.command("models")
    def models(as_json: bool = common.Json) -> None:
        """List the models that have a short name. Any Hugging Face id, folder or GGUF file works too.

        Example: [bold]optrode models[/]
        """
        from ..sources import known_models

        known = known_models()
        if as_json:
            common.print_json([asdict(model) for model in known])
            return
        from rich.table import Table

        table = Table(box=None, pad_edge=False)
        for title in ("name", "parameters", "what", "licence", "here"):
            table.add_column(title, no_wrap=title in ("name", "parameters"))
        for model in known:
            here = "yes" if model.fetched else "fetched on first use"
            table.add_row(model.name, model.parameters, model.description, model.licence, here)
        common.console().print(table)
