"""`optrode audit EDIT`: what an edit does to a model's refusals, and how well it is seen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ..errors import BadInput
from . import common

if TYPE_CHECKING:
    from ..edits.base import Edit
    from ..model import Model

STAND_IN = "smollm2-135m"


def register(app: typer.Typer) -> None:
    @app.command("audit")
    def audit(
        edit: Path = typer.Argument(..., help="The edit file to audit."),
        model: str = typer.Option(STAND_IN, "--model", "-m", help=common.MODEL_HELP),
        prompts: Path | None = typer.Option(
            None,
            "--prompts",
            help="Prompts that the model declines, from a text file (one a line) or JSONL. Default, for smollm2-135m "
            "alone: questions about birds, which a small adapter makes it decline first.",
        ),
        strength: float = typer.Option(1.0, "--strength", help="Multiplies the edit; 1 is as saved."),
        draws: int = typer.Option(5, help="Random directions of the same size to compare with."),
        max_new_tokens: int = typer.Option(24, help="Most tokens to write for each prompt."),
        count: int = typer.Option(30, help="Most prompts to ask."),
        as_json: bool = common.Json,
    ) -> None:
        """Measure how much an edit weakens what a model declines, against random directions, and how well it is seen.

        Example: [bold]optrode audit cheerful.edit --model smollm2-135m --strength 2[/]
        """
        from ..edits.file import load_edit
        from ..steering.backdoor_activation import BackdoorActivation
        from ..steering.rogue_scalpel import RogueScalpel

        if draws < 0 or count < 1:
            raise BadInput("--draws must be at least 0 and --count at least 1")
        loaded = load_edit(edit)
        host = common.load_model(model)
        # Another model than the edit's own is refused here.
        with host.edited(loaded):
            host.generate("Hello", max_new_tokens=1)
        given = loaded if strength == 1 else loaded * strength
        target, declined, groups, tried = _declining(host, given, prompts, count)
        report = RogueScalpel(draws=draws, new_tokens=max_new_tokens).audit(target, tried, declined, groups)
        seen = BackdoorActivation().audit(host, given)
        if as_json:
            common.print_json({"edit": str(edit), "refusals": report.as_dict(), "detection": seen.as_dict()})
            return
        typer.echo(report)
        typer.echo(seen)
        if report.worse_than_random:
            count = len(report.random)
            common.note(
                f"refusals became less likely by {-report.shift.value:.2f} nats, more than under any of {count} random "
                "directions of the edit's size: see the how-to on audits"
            )


def _declining(
    host: Model, edit: Edit, file: Path | None, count: int
) -> tuple[Model, list[str], list[str] | None, Edit]:
    """The model that declines, prompts that it declines, their topics, and the edit as that model takes it."""
    if file is not None:
        found = common.gather_prompts(None, file)
        if not all(isinstance(prompt, str) for prompt in found):
            raise BadInput(f"'{file}' holds conversations: an audit needs plain prompts")
        return host, found[:count], None, edit
    from ..errors import WrongModel
    from ..parts.organisms import birds, with_adapter
    from ..steering.auditing import rebound

    try:
        organism = with_adapter(host, birds.decline_birds())
    except WrongModel as problem:
        raise BadInput(
            f"the stand-in that declines questions about birds is for {STAND_IN}: give --prompts FILE with prompts "
            "that this model declines"
        ) from problem
    asked, groups = birds.questions(count)
    return organism, asked, groups, rebound(edit)
