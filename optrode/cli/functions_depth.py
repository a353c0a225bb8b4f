"""`optrode functions maps|edge`: what a function does with a signal through the layers of a random network."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import BadInput
from . import common

if TYPE_CHECKING:
    from ..functions.gains import Signal

ENDINGS = (".svg", ".png", ".html", ".json", ".pdf")
QUANTITIES = ("variance", "correlation", "slope")


def register_depth(app: typer.Typer) -> None:
    _maps(app)
    _edge(app)


def _maps(app: typer.Typer) -> None:
    @app.command("maps")
    def maps(
        name: str = typer.Argument(..., help="Name or alias of a function."),
        depth: int = typer.Option(20, "--depth", help="Layers."),
        sigma_w: float | None = typer.Option(
            None, "--sigma-w", help="Weights have deviation sigma_w / sqrt(width). Default: the function's gain."
        ),
        sigma_b: float = typer.Option(0.0, "--sigma-b", help="Deviation of biases."),
        variance: float = typer.Option(1.0, "--variance", help="Variance of the first layer."),
        correlation: float = typer.Option(0.5, "--correlation", help="Correlation of two inputs there."),
        width: int = typer.Option(512, "--width", help="Neurons of the real networks beside the theory."),
        networks: int = typer.Option(8, "--networks", help="How many of them; 0 for the theory alone."),
        out: Path | None = typer.Option(None, "--out", "-o", help="A picture: svg, png, html, json or pdf."),
        as_json: bool = common.Json,
    ) -> None:
        """Follow variance, correlation and slope through random layers: in theory, and in real networks.

        Example: [bold]optrode functions maps tanh --depth 20 --sigma-w 1.3 --sigma-b 0.2 -o maps.svg[/]
        """
        from ..functions.gains import gain
        from ..functions.gains import maps as theory_of
        from ..functions.real_networks import measured

        if out is not None and out.suffix.lower() not in ENDINGS:
            raise BadInput(f"'{out.name}' is no picture: end it in {', '.join(ENDINGS)}")
        settings: dict[str, Any] = {
            "weight_variance": (gain(name) if sigma_w is None else sigma_w) ** 2, "bias_variance": sigma_b**2,
            "variance": variance, "correlation": correlation,
        }  # fmt: skip
        seen = measured(name, depth, width=width, networks=networks, **settings) if networks else None
        theory = seen.theory if seen else theory_of(name, depth, **settings)
        if as_json:
            mean, error = (asdict(seen.mean), asdict(seen.error)) if seen else (None, None)
            common.print_json({"settings": settings, "theory": asdict(theory), "networks": mean, "errors": error})
        else:
            _print(theory, seen.mean if seen else None, seen.error if seen else None)
        if out is not None:
            _draw(seen.plot() if seen else theory.plot(), out)


def _print(theory: Signal, mean: Signal | None, error: Signal | None) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("layer", justify="right")
    for quantity in QUANTITIES:
        table.add_column(quantity, justify="right", no_wrap=True)
        if mean is not None:
            table.add_column("networks", justify="right", no_wrap=True)
    for layer in range(len(theory.variance)):
        cells = [str(layer)]
        for quantity in QUANTITIES:
            cells.append(f"{getattr(theory, quantity)[layer]:.4g}")
            if mean is not None and error is not None:
                cells.append(f"{getattr(mean, quantity)[layer]:.3f} ± {getattr(error, quantity)[layer]:.3f}")
        table.add_row(*cells)
    common.console().print(table)


def _draw(chart: Any, out: Path) -> None:
    from ..home import written_whole

    with written_whole(out) as aside:
        chart.save(str(aside), format=out.suffix.lower()[1:])
    common.note(f"wrote {out}")


def _edge(app: typer.Typer) -> None:
    @app.command("edge")
    def edge(
        names: list[str] = typer.Argument(..., metavar="NAME...", help="Names or aliases of functions."),
        sigma_b: list[float] = typer.Option([0.0, 0.05, 0.2, 0.5, 1.0], "--sigma-b", help="Deviation of biases."),
        as_json: bool = common.Json,
    ) -> None:
        """Say at which weights a function's random network is on the edge of chaos.

        Example: [bold]optrode functions edge tanh gelu --sigma-b 0.2[/]
        """
        from ..functions.chaos import edge as edge_of

        found = {name: edge_of(name, sigma_b) for name in names}
        if as_json:
            common.print_json({name: [asdict(one) for one in points] for name, points in found.items()})  # type: ignore[union-attr]
            return
        for name, points in found.items():
            typer.echo(name)
            for one in points:  # type: ignore[union-attr]
                typer.echo(f"  {one}")
