"""The studies: one file per row of the catalogue, named after it, with a module-level `STUDY`; and what runs them.

Committed results are in `studies/results/` of the repository. There is no list to edit.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..engine.progress import Steps
from ..errors import UnknownName, did_you_mean
from ..home import written_whole
from ..parts.record import RunRecord
from ..parts.study import Study, overall

SCHEMA = "optrode.study/1"


def study_ids() -> list[str]:
    """Every study there is, by the names of its files."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def find_study(name: str) -> Study:
    """The study of a row. Raises `UnknownName` with the nearest ids."""
    if name not in study_ids():
        raise UnknownName(f"there is no study '{name}': {did_you_mean(name, study_ids())}")
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}").STUDY


def run_study(name: str, *, full: bool = False, arguments: list[str] | None = None) -> dict[str, Any]:
    """Run a study and give its result as plain data. `full` runs the card's own size."""
    study = find_study(name)
    # From Python too, the record says how the command line repeats the run.
    own = ["study", name, *(["--full"] if full else [])]
    record = RunRecord(arguments or own, seed=study.seeds[0])
    with Steps(f"study {name}") as steps:
        findings = study.run(study.seeds, full, steps)
    return {
        "schema": SCHEMA,
        "id": study.id,
        "title": study.title,
        "paper": study.paper,
        "full": full,
        "shrunk": "" if full else study.shrunk,
        "seeds": list(study.seeds),
        "verdict": overall(findings),
        "findings": [asdict(finding) for finding in findings],
        "record": record.as_dict(),
    }


def save_study(result: dict[str, Any], folder: str | Path) -> Path:
    """Write a result as `<id>.json`; the file is whole or absent."""
    path = Path(folder) / f"{result['id']}.json"
    with written_whole(path) as aside:
        aside.write_text(json.dumps(result, indent=1, default=float) + "\n", encoding="utf-8")
    return path
