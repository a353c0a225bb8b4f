"""What the commands share: options, printing, and reading prompts."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import BadInput, MissingFile

if TYPE_CHECKING:
    from rich.console import Console

    from ..model import Model

MODEL_HELP = "A named model (see optrode models), Hugging Face id, folder or GGUF file."
Json = typer.Option(False, "--json", help="Print one JSON object instead of tables.")
Raw = typer.Option(False, "--raw", help="Use prompts as they are, without the model's chat template.")
System = typer.Option(None, "--system", help="System prompt, put in front of every conversation.")


def console() -> Console:
    from rich.console import Console

    return Console()


def print_json(value: Any) -> None:
    """One JSON object on standard output; numbers of other libraries become plain ones."""
    typer.echo(json.dumps(value, indent=1, default=_plain, ensure_ascii=False))


def load_model(name: str) -> Model:
    from ..model import load

    return load(name)


def template(raw: bool) -> str | None:
    return "raw" if raw else None


def gather_prompts(prompts: list[str] | None, file: Path | None) -> list[Any]:
    """Prompts from the command line, or from a text file (one a line) or JSONL file (`prompt` or `messages`).

    Raises `MissingFile`, and `BadInput` when there is none or a line is no prompt.
    """
    if file is None:
        if not prompts:
            raise BadInput("no prompt was given: write one after the options, or name a file with --file")
        return list(prompts)
    if not file.is_file():
        raise MissingFile(f"there is no file '{file}': give a text file with one prompt a line, or JSONL")
    try:
        whole = file.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError) as problem:
        raise BadInput(f"'{file}' cannot be read, or is no text in UTF-8: save it as such") from problem
    lines = [line for line in whole.split("\n") if line.strip()]
    if file.suffix.lower() in (".jsonl", ".ndjson"):
        lines = [prompt_of(line, number) for number, line in enumerate(lines, 1)]
    if not lines and not prompts:
        raise BadInput(f"'{file}' holds no prompt: it is empty")
    return [*(prompts or []), *lines]


def gather_inputs(host: Model, given: list[str] | None, file: Path | None) -> list[Any]:
    """Prompts, or paths of pictures for a model that takes no text or where all that is given are such files."""
    from ..pictures import ENDINGS

    paths = [Path(text) for text in given or []]
    named = bool(paths) and all(path.suffix.lower() in ENDINGS and path.is_file() for path in paths)
    if host.processor is not None and not file and (host.tokenizer is None or named):
        if not paths:
            raise BadInput("no picture was given: write the path of one after the options")
        return paths
    return gather_prompts(given, file)


def prompt_of(line: str, number: int) -> Any:
    """The prompt in a line of JSONL: the line itself, or its `prompt` or `messages`. Raises `BadInput`."""
    try:
        item = json.loads(line)
    except (ValueError, RecursionError) as problem:
        raise BadInput(f"line {number} is no JSON: write one object a line") from problem
    found = (
        item
        if isinstance(item, str | list)
        else item.get("prompt") or item.get("messages")
        if isinstance(item, dict)
        else None
    )
    if not isinstance(found, str | list) or not found:
        raise BadInput(f"line {number} has no prompt: write a text, or an object with prompt or messages")
    return found


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)


def note(text: str) -> None:
    """A line for people, on standard error, so that standard output stays clean."""
    print(text, file=sys.stderr)
