"""`optrode import FILE --out x.edit`: an edit in the file of another tool becomes one of ours."""

from __future__ import annotations

from pathlib import Path

import typer

from ..errors import BadInput
from . import common

ENDING = ".edit"


def register(app: typer.Typer) -> None:
    @app.command("import")
    def import_(
        file: Path = typer.Argument(
            ...,
            help="A control vector of llama.cpp or repeng (.gguf), a file of steering-vectors, or a folder of PEFT.",
        ),
        out: Path = typer.Option(..., "--out", "-o", help="The edit file (.edit) to write."),
        model: str | None = typer.Option(
            None,
            "--model",
            "-m",
            help="The model it is for: checks width and layers, and the edit remembers it. Loads it.",
        ),
        as_json: bool = common.Json,
    ) -> None:
        """Make an edit of a file of another tool, and say what it does. Nothing in the file is run.

        Example: [bold]optrode import happy.gguf --model smollm2-135m --out happy.edit[/]
        """  # fmt: skip
        if out.suffix != ENDING:
            raise BadInput(f"'{out.name}' is no name for an edit: use one that ends with {ENDING}")
        from ..edits import import_file
        from ..edits.file import load_edit

        edit = import_file(file, common.load_model(model) if model is not None else None)
        told = load_edit(edit.save(out)).explain()
        if as_json:
            common.print_json({"edit": str(out), **told.as_dict()})
            return
        typer.echo(str(told))
        common.note(f"edit: {out}")
