"""Statistics on the fly, beside the forward alone and a harvest to disk: all 30 sites, 64 texts of 128 tokens."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

import optrode as op

from .alternate import Result, alternate, at_most
from .subject import Subject, subject

LIMIT = 1.10
SITES = "layers.*.out"
TEXTS, LENGTH, TOKENS = 64, 128, 2048


def data() -> list[list[int]]:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(1000, 40000, (TEXTS, LENGTH), generator=generator).tolist()


def forwards(own: Subject, ids: list[list[int]]) -> None:
    """The same forwards by hand, up to the last block: nothing is read."""
    with torch.no_grad():
        for part in torch.tensor(ids).split(TOKENS // LENGTH):
            own.network.model(input_ids=part, attention_mask=torch.ones_like(part), use_cache=False)


def harvest(own: Subject, ids: list[list[int]], folder: Path) -> Any:
    shutil.rmtree(folder, ignore_errors=True)
    return op.harvest(own.model, ids, SITES, to=folder, dtype="float16")


def measure(rounds: int = 5) -> Result:
    own, ids = subject(), data()
    with tempfile.TemporaryDirectory() as folder:
        rows = alternate(
            {
                "forward alone": lambda: forwards(own, ids),
                "op.stats, the default": lambda: op.stats(own.model, ids, SITES),
                "op.stats, moments to the fourth": lambda: op.stats(
                    own.model, ids, SITES, collect=("kurtosis", "norms")
                ),
                "op.stats, covariance": lambda: op.stats(own.model, ids, SITES, collect="covariance"),
                "op.harvest, float16": lambda: harvest(own, ids, Path(folder) / "store"),
            },
            "op.harvest, float16",
            rounds,
        )
    result = Result("Statistics of all 30 residual sites", rows[0].name, rows, [], [])
    ratio = result.ratio("op.stats, the default")
    result.targets.append(at_most("op.stats against a harvest of the same sites", LIMIT, ratio))
    return result
