"""`optrode compare functions`: what the command does for this family."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from . import common


def run_functions(
    task: str, target: str | None, functions: Sequence[str], quick: bool, seed: int, out: Path | None, as_json: bool
) -> None:
    from ..function_comparison import compare_functions
    from ..report.functions import print_functions

    arguments = ["compare", "functions", "--task", task, "--seed", str(seed), *(["--quick"] if quick else [])]
    arguments += ["--target", target] if target else []
    arguments += [part for name in functions for part in ("--function", name)]
    found = compare_functions(task, target=target, functions=functions, quick=quick, seed=seed, arguments=arguments)
    files = found.save(out or Path(f"optrode-functions-{Path(task).stem}"))
    if as_json:
        common.print_json(found.result)
        return
    print_functions(found.result, common.console())
    for name, path in files.items():
        typer.echo(f"{name}: {path}")
