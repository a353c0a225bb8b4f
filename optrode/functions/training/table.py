"""A task from a user's table: numbers and words in, a class or a number out."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from ...errors import BadFile, BadInput, did_you_mean
from .tasks import Part, Split, Task, check_file, classification, shuffled

_MOST_CLASSES, _FEWEST_ROWS, _MOST_WORDS = 50, 50, 30


def table(path: str | Path, target: str | None = None) -> Task:
    """A CSV file with a header as a task: accuracy for a column of classes, the mean squared error for one of numbers.

    `target`: the column to tell from the others, the last by default. Words with up to 30 values become one column
    each; rows with missing values are left out. Numbers are standardised by the fit part; so is a target of numbers.

    Raises `MissingFile`, `BadFile`, and `BadInput` for too few rows or no usable column.
    """
    found = _read(check_file(path))
    name = target or str(found.columns[-1])
    if name not in found.columns:
        raise BadInput(f"'{Path(path).name}' has no column '{name}': {did_you_mean(name, list(found.columns))}")
    found = found.dropna()
    if len(found) < _FEWEST_ROWS:
        raise BadInput(f"'{Path(path).name}' has {len(found)} whole rows: at least {_FEWEST_ROWS} are needed")
    inputs, wanted = _inputs(found.drop(columns=[name]), Path(path).name), found[name]
    return _classes(path, inputs, wanted) if _is_class(wanted) else _numbers(path, inputs, wanted)


def _read(path: Path) -> Any:
    import pandas as pd

    try:
        return pd.read_csv(path)
    except (ValueError, UnicodeDecodeError, OSError) as problem:
        raise BadFile(f"'{path.name}' is no CSV file with a header") from problem


def _is_class(column: Any) -> bool:
    return column.dtype.kind not in "fiu" or (column.dtype.kind in "iu" and column.nunique() <= _MOST_CLASSES)


def _inputs(columns: Any, name: str) -> torch.Tensor:
    import pandas as pd

    words = [one for one in columns.columns if columns[one].dtype.kind not in "fiub"]
    many = [one for one in words if columns[one].nunique() > _MOST_WORDS]
    made = pd.get_dummies(columns.drop(columns=many), columns=[one for one in words if one not in many])
    if not made.shape[1]:
        raise BadInput(f"'{name}' has no column to learn from: numbers, or words of at most {_MOST_WORDS} values")
    return torch.tensor(made.to_numpy(dtype="float32"))


def _classes(path: str | Path, inputs: torch.Tensor, wanted: Any) -> Task:
    names = sorted(wanted.astype(str).unique())
    if not 2 <= len(names) <= _MOST_CLASSES:
        raise BadInput(f"the target has {len(names)} classes: between 2 and {_MOST_CLASSES} can be told apart")
    index = {value: number for number, value in enumerate(names)}
    whole = Part(inputs, torch.tensor([index[value] for value in wanted.astype(str)]))
    return classification(Path(path).stem, tuple(inputs.shape[1:]), len(names), partial(_by_column, whole, False))


def _numbers(path: str | Path, inputs: torch.Tensor, wanted: Any) -> Task:
    whole = Part(inputs, torch.tensor(wanted.to_numpy(dtype="float32"))[:, None])
    split = partial(_by_column, whole, True)
    return Task(
        Path(path).stem, "squared error", False, math.inf, tuple(inputs.shape[1:]), 1, split, F.mse_loss,
        lambda outputs, targets: float(F.mse_loss(outputs, targets)),
    )  # fmt: skip


def _by_column(whole: Part, targets: bool, seed: int) -> Split:
    """Every column less its mean and over its deviation, both of the fit part; the target too where it is a number."""
    split = shuffled(whole, seed)

    def scaled(values: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
        return (values - by.mean(0)) / by.std(0).clamp_min(1e-6)

    return Split(
        *(
            Part(
                scaled(part.inputs, split.fit.inputs),
                scaled(part.targets, split.fit.targets) if targets else part.targets,
            )
            for part in (split.fit, split.tune, split.test)
        )
    )
