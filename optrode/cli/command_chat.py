"""`optrode chat MODEL --edit FILE`: talk with a model while its edits are turned up and down."""

from __future__ import annotations

from pathlib import Path

import typer

from ..errors import BadInput
from . import common


def register(app: typer.Typer) -> None:
    @app.command("chat")
    def chat(
        model: str | None = typer.Argument(None, help=common.MODEL_HELP + " Default: the first edit's own."),
        edit: list[Path] | None = typer.Option(None, "--edit", "-e", help="Edit file; may be given several times."),
        strength: float = typer.Option(1.0, "--strength", help="Strength to begin with; 1 is as saved, 0 is off."),
        system: str | None = common.System,
        side: bool = typer.Option(False, "--side", help="Show the unedited model's replies beside the edited one's."),
        max_new_tokens: int = typer.Option(256, help="Most tokens of a reply."),
        temperature: float = typer.Option(0.0, help="0 is greedy; above 0 samples."),
        seed: int = typer.Option(0, help="Makes sampling repeatable."),
    ) -> None:
        """Talk with a model, and turn its edits up, down, on and off between turns.

        Lines that begin with a slash are commands; /help lists them. Without a terminal, turns and commands are read
        from standard input, one a line; replies are printed plainly, and the exit code is 1 where a line failed.

        Example: [bold]optrode chat smollm2-135m --edit cheerful.edit --side[/]
        """
        from ..edits.file import load_edit
        from ..engine.generating.generate import Sampling
        from .chat.loop import talk
        from .chat.room import Room, dials_of
        from .command_generate import own_model

        if temperature < 0:
            raise BadInput(f"the temperature is {temperature}: it must be 0 (greedy) or above")
        if max_new_tokens < 1:
            raise BadInput(f"--max-new-tokens is {max_new_tokens}: it must be at least 1")
        files = edit or []
        loaded = [load_edit(file) for file in files]
        host = common.load_model(model or own_model(loaded))
        sampling = Sampling(temperature=temperature, seed=seed)
        room = Room(host, dials_of(loaded, files, strength), system, side, sampling, max_new_tokens)
        room.check()
        if talk(room):
            raise typer.Exit(1)
