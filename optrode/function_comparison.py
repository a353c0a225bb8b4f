"""`compare_functions`: activation functions trained under one protocol, as a table, a file and a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .home import written_whole
from .parts.record import RunRecord

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class FunctionComparison:
    """What a comparison of functions found. `result` is plain data, schema `optrode.function-comparison/1`."""

    result: dict[str, Any]

    @property
    def headline(self) -> str:
        return str(self.result["headline"])

    def to_pandas(self) -> pd.DataFrame:
        """One row per function, best first; intervals as columns `score`, `score_low`, `score_high`."""
        import pandas as pd

        rows = []
        for row in self.result["rows"]:
            plain = {name: value for name, value in row.items() if not isinstance(value, dict | list)}
            score = row["score"]
            rows.append({**plain, "score": score["value"], "score_low": score["low"], "score_high": score["high"]})
        return pd.DataFrame(rows)

    def save(self, folder: str | Path) -> dict[str, Path]:
        """Write `result.json` and `report.html` into `folder`, whole or absent."""
        from .report.functions import write_functions
        from .report.result import as_json

        files = {"result": Path(folder) / "result.json", "report": Path(folder) / "report.html"}
        with written_whole(files["result"]) as aside:
            aside.write_text(as_json(self.result, indent=1), encoding="utf-8")
        write_functions(self.result, files["report"])
        return files

    def __str__(self) -> str:
        from rich.console import Console

        from .report.functions import print_functions

        console = Console(width=120, color_system=None, force_jupyter=False, force_terminal=False)
        with console.capture() as capture:
            print_functions(self.result, console)
        return capture.get()

    __repr__ = __str__


def compare_functions(
    task: str = "digits",
    *,
    target: str | None = None,
    functions: Sequence[str] = (),
    quick: bool = True,
    seed: int = 0,
    arguments: list[str] | None = None,
) -> FunctionComparison:
    """Train small networks with one activation function after the other, under one protocol.

    See `optrode.functions.comparison.run` for the arguments and what is raised. A quick run takes one to two minutes on
    one core, a full one a quarter of an hour and more.
    """
    from .functions.comparison import run

    record = RunRecord(arguments or [], seed=seed)
    result = run(task, target=target, functions=functions, quick=quick, seed=seed)
    return FunctionComparison({**result, "record": record.as_dict()})
