"""`compare`: every method of a family on one model and one data set, under one protocol, in one report.

This file only assembles what the family's protocol gives: a result of plain data, ranked, with a run record, that
prints as a table, saves as JSON, HTML and the best edit, and reads back.
"""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .data import Behaviour, behaviour, read_behaviour
from .errors import BadFile, BadInput, MissingFile, UnknownName, did_you_mean
from .home import written_whole
from .parts.record import RunRecord

if TYPE_CHECKING:
    import pandas as pd

    from .edits.base import Edit
    from .model import Model

FAMILIES = ("steering", "functions")


@dataclass
class Comparison:
    """What a comparison found. `result` is plain data (schema `optrode.comparison/1`), `best` the best fitted edit."""

    result: dict[str, Any]
    best: Edit | None = None

    @property
    def headline(self) -> str:
        return str(self.result["headline"])

    def to_pandas(self) -> pd.DataFrame:
        """One row per method, best first; intervals as columns `shift`, `shift_low`, `shift_high` and so on."""
        import pandas as pd

        return pd.DataFrame([_flat(row) for row in self.result["rows"]])

    def save(self, folder: str | Path) -> dict[str, Path]:
        """Write `result.json`, `report.html` and, where there is one, `best.edit` into `folder`, whole or absent."""
        from .report import write_report

        folder = Path(folder)
        files = {"result": folder / "result.json", "report": folder / "report.html"}
        if self.best is not None:
            files["edit"] = self.best.save(folder / "best.edit")
            best = next(row for row in self.result["rows"] if row["kind"] == "method")
            best["edit_file"] = "best.edit"
        with written_whole(files["result"]) as aside:
            aside.write_text(json.dumps(self.result, indent=1, default=float), encoding="utf-8")
        write_report(self.result, files["report"])
        return files

    def __str__(self) -> str:
        from rich.console import Console

        from .report.terminal import print_comparison

        console = Console(width=120, color_system=None, force_jupyter=False, force_terminal=False)
        with console.capture() as capture:
            print_comparison(self.result, console)
        return capture.get()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from .report.inline import comparison

        return comparison(self.result)


def compare(
    family: str,
    *,
    model: Model | str,
    data: Behaviour | str | Path,
    quick: bool = True,
    arguments: list[str] | None = None,
    **settings: Any,
) -> Comparison:
    """Compare every method of a family.

    `model`: a model, or what `load` takes. `data`: a behaviour, its name, or a CSV or JSONL file of pairs. `settings`
    go to the family's protocol, for steering: `budget`, `direction` (for, against, auto), `methods`, `seed`.
    Costs minutes (`quick`) to about an hour on two cores for a model of 135M parameters.

    Raises `UnknownName`, `MissingFile`, `BadInput`, and whatever a method raises.
    """
    from .model import load

    if family == "functions":
        raise BadInput("functions are compared by compare_functions(task), which takes no model")
    if family not in FAMILIES:
        raise UnknownName(f"there is no family '{family}' to compare: {did_you_mean(family, FAMILIES)}")
    protocol = importlib.import_module(f".{family}.comparison", __package__)
    chosen = as_behaviour(data)
    record = RunRecord(arguments or [], seed=int(settings.get("seed", 0)))
    host = load(model) if isinstance(model, str) else model
    size = protocol.QUICK if quick else protocol.FULL
    result, best = protocol.run(host, chosen, protocol.Settings(size=size, **settings))
    record.hashes = {"model": host.fingerprint["weights"], "data": data_hash(chosen)}
    return Comparison({**result, "record": record.as_dict()}, best)


def as_behaviour(data: Behaviour | str | Path) -> Behaviour:
    """A behaviour, by name or from the user's file. Raises `UnknownName`, `MissingFile`, `BadInput`."""
    if isinstance(data, Behaviour):
        return data
    if isinstance(data, Path) or any(sign in data for sign in "./\\"):
        return read_behaviour(data)
    return behaviour(data)


def data_hash(data: Behaviour) -> str:
    """Hash of every text of a behaviour, splits included."""
    import hashlib

    return hashlib.sha256(repr(data).encode()).hexdigest()[:16]


def read_result(path: str | Path) -> dict[str, Any]:
    """A saved result, from its JSON or out of its report. Raises `MissingFile`, `BadFile`."""
    from .report import read_report

    path = Path(path)
    if not path.is_file():
        raise MissingFile(f"there is no file '{path}': give a result.json or report.html that optrode wrote")
    if path.suffix.lower() in (".html", ".htm"):
        return read_report(path)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as problem:
        raise BadFile(f"'{path.name}' is no JSON: give a result.json or report.html that optrode wrote") from problem
    if not isinstance(found, dict) or not isinstance(found.get("record"), dict):
        raise BadFile(f"'{path.name}' carries no run record: give a result.json or report.html that optrode wrote")
    return found


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, dict) and "value" in value:
            flat |= {name: value["value"], f"{name}_low": value["low"], f"{name}_high": value["high"]}
        elif not isinstance(value, dict | list):
            flat[name] = value
    return flat
