"""The activation functions of torch_activation on a grid, with its defaults and with the parameters of the table.

`torch_activation.tsv` beside this file says which class is which row, with which parameters, and why some differ.
"""

from __future__ import annotations

import csv
import importlib
import inspect
import json
import pkgutil
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .oracle import HERE, Measured, Oracle

ORACLE = Oracle(
    fixture="tests/functions/oracles/torch_activation.safetensors",
    bare=("torch-activation==1.0.0",),
    # It imports plotly for its drawings, and leaves out half of its functions where it is missing.
    shims=("plotly",),
)
_SIDE = (0.05, 0.15, 0.3, 0.7, 0.9, 1.2, 1.6, 2.1, 2.7, 4.2, 5.0, 6.1, 8.0)
# Without -1, where a function has a pole.
GRID = (*(-x for x in reversed(_SIDE)), 0.0, *_SIDE, 0.5, 1.0)


@dataclass(frozen=True)
class Line:
    """One class of theirs beside one row of ours. Parameters are such that both should be one function.

    `verdict`: empty where they are; `theirs` or `ours` where that one is wrong; `open` where the sources allow both.
    """

    name: str
    row: str
    theirs: dict[str, float]
    ours: dict[str, float]
    verdict: str
    reason: str


def lines() -> list[Line]:
    text = (HERE / "torch_activation.tsv").read_text(encoding="utf-8")
    return [
        Line(one["class"], one["row"], _numbers(one["theirs"]), _numbers(one["ours"]), one["verdict"], one["reason"])
        for one in csv.DictReader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE)
    ]


def _numbers(text: str) -> dict[str, float]:
    """`a=0.6 set.b=1` as numbers by name."""
    return {name: float(value) for name, value in (part.split("=") for part in text.split())}


def measured() -> Measured:
    found, known = lines(), _classes()
    tensors = {
        "float64": torch.stack([_values(known[line.name], line.theirs, torch.float64) for line in found]),
        "float32": torch.stack([_values(known[line.name], line.theirs, torch.float32) for line in found]),
        "defaults": torch.stack([_values(known[line.name], {}, torch.float64).float() for line in found]),
    }
    texts = {"compared": json.dumps([line.name for line in found]), "classes": json.dumps(sorted(known))}
    return tensors, {**texts, "parameters": json.dumps([line.theirs for line in found])}


def _classes() -> dict[str, type[nn.Module]]:
    """Every class by module and name."""
    import torch_activation as package

    found = {}
    for one in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        for name, kind in vars(importlib.import_module(one.name)).items():
            own = inspect.isclass(kind) and issubclass(kind, nn.Module) and kind.__module__ == one.name
            if own and name != "BaseActivation":
                found[f"{one.name.partition('.')[2]}.{name}"] = kind
    return found


def _values(kind: type[nn.Module], settings: dict[str, float], dtype: torch.dtype) -> Tensor:
    """In evaluation, from a fixed state of the random numbers for what draws them all the same."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    torch.manual_seed(0)
    try:
        given: dict[str, Any] = {name: value for name, value in settings.items() if not name.startswith("set.")}
        if "input_shape" in inspect.signature(kind.__init__).parameters:
            given["input_shape"] = 1
        module = kind(**given).eval()
        with torch.no_grad():
            for name, value in settings.items():
                if name.startswith("set."):
                    getattr(module, name.removeprefix("set.")).fill_(value)
            return module(torch.tensor(GRID, dtype=dtype)).to(dtype).reshape(len(GRID))
    finally:
        torch.set_default_dtype(before)
