"""`optrode generate`: completions, with or without an edit, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import BadInput
from . import common

if TYPE_CHECKING:
    from ..edits.base import Edit
    from ..model import Model


def register(app: typer.Typer) -> None:
    @app.command("generate")
    def generate(
        prompts: list[str] | None = typer.Argument(None, help="Prompts; with a chat model each is one user message."),
        model: str | None = typer.Option(None, "--model", "-m", help=common.MODEL_HELP + " Default: the edit's own."),
        edit: list[Path] | None = typer.Option(None, "--edit", "-e", help="Edit file; may be given several times."),
        strength: float = typer.Option(1.0, "--strength", help="Multiplies the edits; 1 is as saved, 0 is off."),
        system: str | None = common.System,
        raw: bool = common.Raw,
        file: Path | None = typer.Option(None, help="Prompts from a text file (one a line) or JSONL."),
        max_new_tokens: int = typer.Option(64, help="Most tokens to write."),
        temperature: float = typer.Option(0.0, help="0 is greedy; above 0 samples."),
        seed: int = typer.Option(0, help="Makes sampling repeatable."),
        beside: bool = typer.Option(False, "--beside", help="Show the unedited completion too."),
        as_json: bool = common.Json,
    ) -> None:
        """Write completions, steered by edit files.

        Example: [bold]optrode generate --edit best.edit --strength 1 "Tell me about the new restaurant."[/]
        """
        from ..edits.file import load_edit
        from ..engine.generate import Sampling

        if temperature < 0:
            raise BadInput(f"the temperature is {temperature}: it must be 0 (greedy) or above")
        asked = common.gather_prompts(prompts, file)
        edits = [load_edit(path) for path in edit or []]
        host = common.load_model(model or own_model(edits))
        options = {
            "template": common.template(raw),
            "system": system,
            "max_new_tokens": max_new_tokens,
            "sampling": Sampling(temperature=temperature, seed=seed),
        }
        scaled = [scale(found, strength) for found in edits]
        steered, receipt = complete(host, asked, [found for found in scaled if found is not None], options)
        plain = [item.text for item in host.completions(asked, **options)] if beside and edits else None
        show(asked, steered, plain, receipt, as_json)


def scale(edit: Edit, strength: float) -> Edit | None:
    """The edit at a strength; None where strength 0 turns off an edit that cannot be scaled, such as a prompt."""
    if edit.kind == "site":
        return edit * strength
    if strength == 0:
        return None
    return edit if strength == 1 else edit * strength


def own_model(edits: list[Edit]) -> str:
    """The model that the first edit was fitted on."""
    from ..edits.base import Provenance, SiteEditBase

    for edit in edits:
        for leaf in edit.leaves() if isinstance(edit, SiteEditBase) else [edit]:
            name = getattr(leaf, "provenance", Provenance()).fingerprint.get("name")
            if name:
                return str(name)
    raise BadInput("no model was named: add --model, such as --model smollm2-135m")


def complete(host: Model, prompts: list[Any], edits: list[Edit], options: dict[str, Any]) -> tuple[list[str], Any]:
    if not edits:
        return [item.text for item in host.completions(prompts, **options)], None
    with host.edited(*edits) as receipt:
        texts = [item.text for item in host.completions(prompts, **options)]
    return texts, receipt


def show(prompts: list[Any], steered: list[str], plain: list[str] | None, receipt: Any, as_json: bool) -> None:
    if as_json:
        rows = [{"prompt": prompt, "completion": text} for prompt, text in zip(prompts, steered, strict=True)]
        for row, text in zip(rows, plain or [], strict=False):
            row["unedited"] = text
        common.print_json({"completions": rows, "receipt": str(receipt) if receipt else None})
        return
    for number, text in enumerate(steered):
        if len(steered) > 1:
            typer.echo(f"# {prompts[number]}")
        if plain:
            typer.echo(f"unedited: {plain[number].strip()}\nedited:   {text.strip()}")
        else:
            typer.echo(text.strip())
    if receipt:
        common.note(str(receipt).splitlines()[0])
