"""`optrode sites MODEL`: every address of a model, or what one of them is."""

from __future__ import annotations

import typer

from . import common


def register(app: typer.Typer) -> None:
    @app.command("sites")
    def sites(
        model: str = typer.Argument(..., help=common.MODEL_HELP),
        pattern: str | None = typer.Argument(
            None, help="Only the sites that this pattern selects, with their equations."
        ),
        as_json: bool = common.Json,
    ) -> None:
        """Show where a model can be read and edited, as a tree.

        Example: [bold]optrode sites smollm2-135m 'layers.3.attn.*'[/]
        """
        tree = common.load_model(model).sites
        if as_json:
            described = tree.as_dict()
            chosen = tree.match(pattern) if pattern else list(described)
            common.print_json({address: described.get(address, {}) for address in chosen})
        elif pattern:
            typer.echo(tree.explain(pattern))
        else:
            common.console().print(tree.to_rich())
