"""`optrode help [TOPIC]`: what an error means and how to put it right; the traps."""

from __future__ import annotations

import re

import typer

from . import common


def register(app: typer.Typer) -> None:
    @app.command("help")
    def help_(
        topic: str | None = typer.Argument(None, help="The name of an error, such as WrongModel, or traps."),
    ) -> None:
        """Print the page on an error: symptom, causes, wrong and right code. Without a topic, list them.

        Example: [bold]optrode help EditDidNothing[/]
        """
        from .pages import headline, page, topics

        if topic is not None:
            show(page(topic))
            return
        from rich.table import Table

        table = Table(box=None, pad_edge=False, show_header=False)
        for name in topics():
            table.add_row(name, headline(name))
        common.console().print(table)
        typer.echo("\nCommands have their own: optrode COMMAND --help, and optrode --help lists them.")


def show(text: str) -> None:
    """A page for a terminal, or as it is for a file or a pipe."""
    # Marks for the tests of the documentation are no text.
    text = re.sub(r"<!--.*?-->\n?", "", text)
    console = common.console()
    if not console.is_terminal:
        typer.echo(text.rstrip("\n"))
        return
    from rich.markdown import Markdown

    # Links to other pages lead nowhere from here.
    console.print(Markdown(re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text), code_theme="ansi_dark"))
