"""`python -m bench [NAME ...]`: run benchmarks, write bench/results/NAME.json, print tables and missed targets."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

from .alternate import Result
from .facts import facts

RESULTS = Path(__file__).parent / "results"

# Name -> module and function; order is that of the page.
BENCHMARKS = {
    "reading": ("reading", "measure_all"),
    "reading-one-layer": ("reading", "measure_one"),
    "generation": ("generation", "measure"),
    "compile": ("compile_speed", "measure"),
    "sweep": ("sweeping", "measure"),
    "attribution": ("attribution", "measure"),
    "memory": ("memory", "measure"),
    "harvest": ("harvest", "measure"),
    "shuffled": ("harvest", "measure_shuffled"),
    "statistics": ("stats", "measure"),
    "functions": ("functions", "measure"),
    "functions-bfloat16": ("functions", "measure_bfloat16"),
    "functions-list": ("functions", "measure_list"),
    "functions-ways": ("functions", "measure_ways"),
}


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"no benchmark '{unknown[0]}': choose among {', '.join(BENCHMARKS)}")
        return 2
    missed = 0
    for name in names or BENCHMARKS:
        module, function = BENCHMARKS[name]
        print(f"{name}:", flush=True)
        measure: Callable[[], Result] = getattr(importlib.import_module(f".{module}", __package__), function)
        result = measure()
        write(name, result)
        show(result)
        missed += sum(not target.met for target in result.targets)
    print(f"{missed} target{'s' if missed != 1 else ''} missed" if missed else "all targets met")
    return 0


def write(name: str, result: Result) -> None:
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({**result.as_dict(), "facts": facts()}, indent=1)
    (RESULTS / f"{name}.json").write_text(text + "\n")


def show(result: Result) -> None:
    width = max(len(row.name) for row in result.rows)
    unit = result.unit
    for row in result.rows:
        print(f"  {row.name:<{width}}  {row.seconds:9.3f} {unit}  x{row.ratio:.3f}  [{row.low:.3f}, {row.high:.3f}]")
    for target in result.targets:
        print(f"  {'met   ' if target.met else 'MISSED'} {target.what}: {target.measured} (bound {target.limit})")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
