"""`optrode export x.edit --to FILE`: an edit as a file of another tool, or in plain weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import BadInput
from . import common

if TYPE_CHECKING:
    from ..edits import Edit

CONTROL_VECTOR = ".gguf"


def register(app: typer.Typer) -> None:
    @app.command("export")
    def export(
        file: Path = typer.Argument(..., metavar="EDIT", help="An edit file."),
        to: Path = typer.Option(
            ..., "--to", help="A control vector for llama.cpp (NAME.gguf), or a new folder for folded weights."
        ),
        strength: float = typer.Option(1.0, "--strength", "-s", help="Multiply the edit by this."),
        model: str | None = typer.Option(
            None, "--model", "-m", help="The model; needed for folded weights, and for patterns of layers. Loads it."
        ),
        as_json: bool = common.Json,
    ) -> None:
        """Write an edit for another tool, where its format can hold it; what it cannot hold is refused.

        Example: [bold]optrode export happy.edit --to happy.gguf[/]
        """
        from ..edits.file import load_edit

        edit = load_edit(file)
        edit = edit * strength if strength != 1 else edit
        if to.suffix.lower() == CONTROL_VECTOR:
            host = common.load_model(model) if model is not None else None
            written, what = edit.export(to, host), "control vector"
        elif to.suffix:
            raise BadInput(f"'{to.name}' names no format that can be written: use {CONTROL_VECTOR}, or a folder's name")
        else:
            written, what = _folded(edit, to, model), "folded weights"
        if as_json:
            common.print_json({what: str(written)})
            return
        typer.echo(f"{what}: {written}")


def _folded(edit: Edit, folder: Path, model: str | None) -> Path:
    """A checkpoint of the model with the edit in its biases, which any program loads."""
    from ..home import written_whole

    if model is None:
        raise BadInput(f"'{folder}' would hold a whole model with the edit in it: name the model with --model")
    if folder.exists():
        raise BadInput(f"'{folder}' is there already: name a new folder")
    host = common.load_model(model)
    network: Any = edit.fold(host)
    if not hasattr(network, "save_pretrained"):
        raise BadInput(f"{host.name} is no network of transformers, so that it has no checkpoint format")
    with written_whole(folder) as aside:
        network.save_pretrained(aside)
        if host.tokenizer is not None:
            host.tokenizer.save_pretrained(aside)
    return folder
