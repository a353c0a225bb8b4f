"""`optrode sweep MODEL --base ... --donor ...`: every patch by itself, and what it does to the answer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import BadInput
from . import common

if TYPE_CHECKING:
    from ..maps import Map
    from ..metrics import Metric


def register(app: typer.Typer) -> None:
    @app.command("sweep")
    def sweep(
        model: str = typer.Argument(..., help=common.MODEL_HELP),
        base: list[str] = typer.Option(..., "--base", "-b", help="Prompt that is patched; may be given several times."),
        donor: list[str] = typer.Option(
            ..., "--donor", "-d", help="Prompt of as many tokens that the values come from; or zero, or mean."
        ),
        answer: str | None = typer.Option(None, help="Token whose logit is measured, such as ' Mary'."),
        against: str | None = typer.Option(None, help="Token whose logit is subtracted, such as ' John'."),
        sites: list[str] = typer.Option(
            ["layers.*.out"], "--sites", "-s", help="Site pattern; may be given several times."
        ),
        each: list[str] | None = typer.Option(
            None, help="Axis that is taken apart besides the layer: position, head, feature or example."
        ),
        positions: str = typer.Option("all", help="Which tokens are patched, such as last_prompt or span:John."),
        metric: str | None = typer.Option(None, help="probability, log-probability or kl instead of logits."),
        to: Path | None = typer.Option(None, "--to", help="Save to .html, .png, .svg, .json, .npz or .csv."),
        top: int = typer.Option(10, help="How many cells to print."),
        plan: bool = typer.Option(False, "--plan", help="Run base and donor only: print how much there is to do."),
        system: str | None = common.System,
        raw: bool = common.Raw,
        as_json: bool = common.Json,
    ) -> None:
        """Patch every cell by itself and measure the answer. Exact: as one patched forward for each, in far less time.

        Example: [bold]optrode sweep smollm2-135m --raw --base "Mary and John went out. John gave a drink to"
        --donor "Mary and John went out. Mary gave a drink to" --answer " Mary" --against " John"[/]
        """
        from ..engine.sweep import plan_sweep
        from ..engine.sweep import sweep as run

        measured = metric_of(metric, answer, against)
        if to is not None:
            from ..maps.files import check_ending

            check_ending(to)
        host = common.load_model(model)
        given: Any = donor[0] if len(donor) == 1 and donor[0] in ("zero", "mean") else donor
        options: dict[str, Any] = {
            "metric": measured, "each": each or None, "positions": positions, "template": common.template(raw),
            "system": system,
        }  # fmt: skip
        if plan:
            planned = plan_sweep(host, base, given, sites, **options)
            common.print_json(planned.as_dict()) if as_json else common.console().print(planned)
            return
        found = run(host, base, given, sites, **options)
        if to is not None:
            found.save(to)
        if as_json:
            common.print_json({**summary(found, top), "saved": str(to) if to else None})
            return
        common.console().print(table(found, top))
        common.note(work(found) + (f"; saved to {to}" if to else ""))


def metric_of(name: str | None, answer: str | None, against: str | None) -> Metric:
    """The metric that the options mean. Raises `BadInput` where they do not go together."""
    from .. import metrics

    if name == "kl":
        if answer or against:
            raise BadInput("--metric kl compares whole answers: leave --answer and --against out")
        return metrics.KLDivergence()
    if answer is None:
        raise BadInput("no answer to measure: give --answer ' Mary' (and --against ' John'), or --metric kl")
    if name in ("probability", "log-probability"):
        if against is not None:
            raise BadInput(f"--metric {name} is of one token: leave --against out")
        return metrics.Probability(answer) if name == "probability" else metrics.LogProbability(answer)
    if name is not None:
        raise BadInput(f"metric '{name}' is not known: use probability, log-probability or kl, or leave it out")
    return metrics.LogitDifference(answer, against) if against is not None else metrics.Logit(answer)


def summary(found: Map, top: int) -> dict[str, Any]:
    """Base, donor, the work that was done, and the cells that matter most; plain values."""
    kept = ("cells", "computed", "skipped", "way", "why", "forwards_worth", "forwards_saved")
    return {
        "unit": found.unit,
        "base": float(found.base.mean()),
        "donor": float(found.donor.mean()) if found.donor is not None else None,
        **{name: found.notes[name] for name in kept},
        "top": found.top(top).to_dict("records"),
    }


def work(found: Map) -> str:
    """What was computed and saved, in one line."""
    notes = found.notes
    why = f" ({notes['why']})" if notes["why"] else ""
    ran = f"{notes['computed']} computed by {notes['way']}{why}, {notes['skipped']} without effect"
    worth = f"the work of {notes['forwards_worth']:.3g} forwards, {notes['forwards_saved']:.4g} saved"
    return f"{notes['cells']} cells: {ran}; {worth}"


def table(found: Map, top: int) -> Any:
    from rich.table import Table

    frame = found.top(top)
    title = f"{found.unit}: base {float(found.base.mean()):.4g}"
    if found.donor is not None:
        title += f", donor {float(found.donor.mean()):.4g}"
    shown = Table(title=title, title_justify="left", box=None, pad_edge=False)
    labels = [name for name in frame.columns if name not in ("value", "change")]
    for name in (*labels, "value", "change"):
        shown.add_column(name, justify="left" if name in ("position", "site") else "right")
    shown.add_column("")
    most = max(frame["change"].abs().max(), 1e-12) if len(frame) else 1.0
    for row in frame.to_dict("records"):
        bar = "█" * max(1, round(12 * abs(row["change"]) / most))
        colour = "blue" if row["change"] > 0 else "yellow"
        cells = [str(row[name]).replace("[", r"\[") for name in labels]
        shown.add_row(*cells, f"{row['value']:.4g}", f"{row['change']:+.4g}", f"[{colour}]{bar}[/]")
    return shown
