"""`optrode compare FAMILY`: every method of a family under one protocol, in one report."""

from __future__ import annotations

from pathlib import Path

import typer

from ..errors import BadInput
from . import common


def register(app: typer.Typer) -> None:
    @app.command("compare")
    def compare(
        family: str = typer.Argument(..., help="steering or functions"),
        model: str = typer.Option("smollm2-135m", "--model", "-m", help=common.MODEL_HELP),
        data: str = typer.Option(
            "sentiment",
            help="A behaviour (sentiment, decline-birds, ...), or a CSV or JSONL file of pairs or of labelled texts.",
        ),
        quick: bool = typer.Option(False, "--quick", help="Few methods, a small grid, no side effects: minutes."),
        methods: list[str] | None = typer.Option(
            None, "--method", help="Only this method; may be given several times."
        ),
        direction: str = typer.Option("auto", help="for or against the behaviour; auto: where the model leans away."),
        task: str = typer.Option("digits", help="functions: digits, text, inr, or the path of a CSV file."),
        target: str | None = typer.Option(None, help="functions: the column of the CSV that is learnt."),
        functions: list[str] | None = typer.Option(
            None, "--function", help="functions: one more function; may be given several times."
        ),
        budget: float = typer.Option(1.2, help="Largest perplexity ratio on neutral text that a choice may cost."),
        seed: int = typer.Option(0, help="Seed of random directions and intervals."),
        out: Path | None = typer.Option(None, "--out", "-o", help="Folder for result.json, report.html and best.edit."),
        as_json: bool = common.Json,
    ) -> None:
        """Fit, tune and test every method on the same data, beside prompting and random directions.

        Example: [bold]optrode compare steering --model smollm2-135m --data sentiment --quick[/]

        Example: [bold]optrode compare functions --task digits --quick[/]
        """
        if family == "functions":
            from .function_comparison import run_functions

            if methods:
                raise BadInput("--method chooses among steering methods: name activation functions with --function")
            run_functions(task, target, functions or [], quick, seed, out, as_json)
            return
        if functions or target:
            raise BadInput("--function and --target belong to optrode compare functions")
        from ..compare import compare as run
        from ..report.terminal import print_comparison

        arguments = ["compare", family, "--model", model, "--data", data, "--direction", direction]
        arguments += ["--budget", str(budget), "--seed", str(seed), *(["--quick"] if quick else [])]
        arguments += [part for name in methods or [] for part in ("--method", name)]
        found = run(
            family, model=model, data=data, quick=quick, arguments=arguments,
            methods=tuple(methods or ()), direction=direction, budget=budget, seed=seed,
        )  # fmt: skip
        folder = out or Path(f"optrode-{family}-{Path(data).stem}")
        files = found.save(folder)
        if as_json:
            common.print_json(found.result)
            return
        print_comparison(found.result, common.console())
        for name, path in files.items():
            typer.echo(f"{name}: {path}")
        if "edit" in files:
            typer.echo(f'try: optrode generate --edit {files["edit"]} --beside "Tell me about the new restaurant."')
