"""Puts the commands together: every module of this folder with a `register` function adds its own."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import typer

from ..version import __version__

# In the order in which a newcomer meets them; a command that is not named here comes last.
ORDER = (
    "models", "sites", "read", "store", "stats", "fit", "explain", "diff", "import", "export", "generate", "chat",
    "compare", "study", "rerun",
)  # fmt: skip


def build() -> Any:
    """The whole program as a click command."""
    app = typer.Typer(
        help="Read, score, edit and compare the activations of neural networks.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
    )
    app.callback()(_options)
    folder = importlib.import_module(__package__ or "optrode.cli").__path__
    names = [module.name for module in pkgutil.iter_modules(folder) if module.name.startswith("command_")]
    for name in sorted(names, key=_place):
        importlib.import_module(f"{__package__}.{name}").register(app)
    return typer.main.get_command(app)


def _options(
    version: bool = typer.Option(
        False, "--version", help="Print the version and leave.", callback=lambda on: _version(on)
    ),
) -> None:
    """Read, score, edit and compare the activations of neural networks.

    Start with [bold]optrode compare steering --model smollm2-135m --data sentiment --quick[/].
    """


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"optrode {__version__}")
        raise typer.Exit


def _place(module: str) -> tuple[int, str]:
    name = module.removeprefix("command_")
    return (ORDER.index(name) if name in ORDER else len(ORDER), name)
