"""`optrode functions list|show|plot|maps|edge`: the activation functions that there are, and what they look like."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import BadInput
from . import common
from .functions_depth import register_depth

if TYPE_CHECKING:
    from ..functions.protocol import Function

ENDINGS = (".svg", ".png", ".html", ".json", ".pdf")


def register(app: typer.Typer) -> None:
    functions = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", add_completion=False)
    app.add_typer(
        functions, name="functions",
        help="Activation functions by name. Example: [bold]optrode functions show golu[/]",
    )  # fmt: skip
    _list(functions)
    _show(functions)
    _plot(functions)
    register_depth(functions)


def _list(app: typer.Typer) -> None:
    @app.command("list")
    def list_(
        text: str | None = typer.Argument(None, help="What name, alias, formula or source should hold."),
        kind: str | None = typer.Option(None, "--kind", help="fixed, adaptive, gated, stochastic or pooling."),
        confidence: str | None = typer.Option(None, "--confidence", help="high, medium or low."),
        as_json: bool = common.Json,
    ) -> None:
        """List the functions: names, formulas, and how sure formula and defaults are.

        Example: [bold]optrode functions list tanh --kind adaptive[/]
        """
        from ..functions.table import rows

        wanted = (text or "").lower()
        found = [
            row
            for row in rows().values()
            if wanted in " ".join((row.name, *row.aliases, row.formula, row.source)).lower()
            and row.kind.startswith(kind or "")
            and confidence in (None, row.confidence)
        ]
        if as_json:
            common.print_json([vars(row) for row in found])
            return
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False)
        for title in ("name", "kind", "confidence", "formula"):
            table.add_column(title, overflow="ellipsis" if title != "formula" else "fold", no_wrap=title == "name")
        for row in found:
            # Formulas have square brackets, which would be taken for styles.
            table.add_row(*(Text(value) for value in (row.name, row.kind, row.confidence, row.formula)))
        common.console().print(table)
        typer.echo(f"{len(found)} of {len(rows())} functions; optrode functions show NAME says all of one")


def _show(app: typer.Typer) -> None:
    @app.command("show")
    def show(
        names: list[str] = typer.Argument(..., metavar="NAME...", help="Names or aliases."), as_json: bool = common.Json
    ) -> None:
        """Say all of some functions: formula, parameters, domain, range, monotony, source.

        Example: [bold]optrode functions show golu "leaky relu"[/]
        """
        from ..functions.zoo import get

        told = [facts(get(name)) for name in names]
        if as_json:
            common.print_json(told)
        else:
            typer.echo("\n\n".join("\n".join(f"{key:<11} {value}" for key, value in one.items()) for one in told))


def _plot(app: typer.Typer) -> None:
    @app.command("plot")
    def plot(
        names: list[str] = typer.Argument(..., metavar="NAME...", help="Names or aliases."),
        out: Path = typer.Option(Path("functions.svg"), "--out", "-o", help="svg, png, html, json or pdf."),
        low: float = typer.Option(-5.0, help="Left end."),
        high: float = typer.Option(5.0, help="Right end."),
    ) -> None:
        """Draw functions with their derivatives.

        Example: [bold]optrode functions plot gelu mish golu -o three.svg[/]
        """
        from ..functions.chart import plot as draw
        from ..home import written_whole

        if out.suffix.lower() not in ENDINGS:
            raise BadInput(f"'{out.name}' is no picture: end it in {', '.join(ENDINGS)}")
        chart = draw(*names, low=low, high=high)
        with written_whole(out) as aside:
            chart.save(str(aside), format=out.suffix.lower()[1:])  # type: ignore[arg-type]
        typer.echo(f"wrote {out}")


def facts(function: Function) -> dict[str, Any]:
    """What there is to know of one function, in plain values."""
    from ..functions.of_formula import FormulaFunction

    row = function.row
    told: dict[str, Any] = {"name": row.name}
    if row.aliases:
        told["also"] = "; ".join(row.aliases)
    told |= {"formula": row.formula, "kind": row.kind, "parameters": row.remarks or "none"}
    if isinstance(function, FormulaFunction):
        shape = function.shape
        about = [
            word for word, true in (("odd", shape.odd), ("even", shape.even), ("f(0) = 0", shape.fixed_zero)) if true
        ]
        told |= {
            "domain": _interval(shape.domain),
            "range": _interval(shape.range),
            "monotony": ", ".join([shape.monotony, *about]),
        }
        if function.stable:
            told["computed as"] = function.stable
        if function.surrogate:
            told["backward"] = function.surrogate
    return told | {
        "random": "in training" if function.random else "no",
        "source": row.source,
        "confidence": row.confidence,
    }


def _interval(ends: tuple[float, float]) -> str:
    return f"{ends[0]:.6g} to {ends[1]:.6g}"
