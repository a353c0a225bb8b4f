"""`optrode generate`: completions, with or without an edit, side by side, as JSONL, or word by word."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import BadInput
from . import common
from .replies import STANDARD, Edits, Line, lines_of, read_lines, write_replies

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
        lines_in: Path | None = typer.Option(
            None,
            "--in",
            help="JSONL with a prompt a line, - for standard input. A line has prompt or messages, and may have edits "
            "(paths) and strength of its own; all its fields are kept. Replies are JSONL too.",
        ),
        out: Path | None = typer.Option(
            None,
            help="Write replies as JSONL, - for standard output, which is the default with --in. A file that holds "
            "replies of the same run already is gone on with.",
        ),
        rows: int = typer.Option(16, "--rows", help="Prompts that are written together with --in or --out."),
        stream: bool = typer.Option(False, "--stream", help="Show the completion of one prompt while it is written."),
        max_new_tokens: int = typer.Option(64, help="Most tokens to write."),
        temperature: float = typer.Option(0.0, help="0 is greedy; above 0 samples."),
        seed: int = typer.Option(0, help="Makes sampling repeatable."),
        beside: bool = typer.Option(False, "--beside", help="Show the unedited completion too."),
        as_json: bool = common.Json,
    ) -> None:
        """Write completions, steered by edit files.

        Example: [bold]optrode generate --edit best.edit --strength 1 "Tell me about the new restaurant."[/]
        """
        from ..engine.generating.generate import Sampling

        if temperature < 0:
            raise BadInput(f"the temperature is {temperature}: it must be 0 (greedy) or above")
        if rows < 1:
            raise BadInput(f"--rows is {rows}: it must be at least 1")
        if (lines_in is not None or out is not None) and (as_json or stream):
            raise BadInput("--in and --out are JSONL already, for many prompts: leave --json and --stream out")
        if lines_in is not None and (prompts or file):
            raise BadInput("--in brings the prompts: leave other prompts and --file out")
        if stream and (as_json or beside):
            raise BadInput("--stream shows one completion as it comes: leave --json and --beside out")
        lines = read_lines(lines_in) if lines_in is not None else lines_of(common.gather_prompts(prompts, file))
        if stream and len(lines) != 1:
            raise BadInput(f"--stream shows one completion, but there are {len(lines)} prompts")
        edits = Edits(edit or [], strength)
        loaded = edits.load(lines)
        host = common.load_model(model or own_model(loaded))
        options: dict[str, Any] = {
            "template": common.template(raw),
            "system": system,
            "max_new_tokens": max_new_tokens,
            "sampling": Sampling(temperature=temperature, seed=seed),
        }
        if lines_in is not None or out is not None:
            common.note(write_replies(host, lines, out or Path(STANDARD), edits, options, rows, beside))
        elif stream:
            show_stream(host, lines[0], edits.of(lines), options)
        else:
            asked, active = [line.prompt for line in lines], edits.of(lines)
            steered, receipt = complete(host, asked, active, options)
            plain = [item.text for item in host.completions(asked, **options)] if beside and active else None
            show(asked, steered, plain, receipt, as_json)


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


def show_stream(host: Model, line: Line, edits: list[Edit], options: dict[str, Any]) -> None:
    """Print the pieces of one completion as they come."""
    with host.edited(*edits) if edits else nullcontext() as receipt, host.stream(line.prompt, **options) as stream:
        for piece in stream:
            typer.echo(piece, nl=False)
        typer.echo()
    if receipt:
        common.note(str(receipt).splitlines()[0])


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
