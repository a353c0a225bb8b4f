"""Which activation function for this data? Candidates trained under one budget, and whether the data can rank them."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..engine.progress import Steps
from ..errors import BadInput
from ..parts.discovery import methods_of
from ..parts.statistics import interval_over_seeds
from .methods.protocol import ActivationMethod, NamedFunction
from .training.comparing import agreement, first, gain, ranks
from .training.networks import Build, character_model, coordinate_mlp, mlp
from .training.tasks import Task, find_task
from .training.train import Budget, Trained, budget_of, train

SCHEMA = "optrode.function-comparison/1"
# What is used most, and a few that differ in kind.
USUAL = (
    "relu", "leaky relu", "elu", "gelu", "silu", "mish", "golu", "tanh", "softplus", "squared relu", "xgelu",
    "PAU version A",
)  # fmt: skip
# Below this mean rank correlation between seeds an order is the seeds' own.
CLEAR = 0.5


@dataclass(frozen=True)
class Size:
    """Seeds, share of the task's steps, and learning rates; `methods` adds those of papers."""

    seeds: int
    steps: float
    rates: tuple[float, ...]
    methods: bool


QUICK, FULL = Size(3, 0.5, (3e-3, 1e-2, 3e-2), False), Size(5, 2.0, (1e-3, 3e-3, 1e-2, 3e-2), True)
# A step of the character model takes ten times as long as the others.
QUICK_TEXT = Size(3, 0.2, (1e-2, 2e-2), False)
NETWORKS = {
    "digits": "2 hidden layers of 64", "text": "transformer, 2 layers of width 64", "inr": "4 hidden layers of 128",
}  # fmt: skip
# With fewer seeds, drawing them with replacement says more than they know.
ENOUGH_SEEDS = 5
_INTERVAL = ("value", "low", "high")


def size_of(task: Task, quick: bool) -> Size:
    if not quick:
        return FULL
    return QUICK_TEXT if task.name == "text" else QUICK


def run(
    task: str, *, target: str | None = None, functions: Sequence[str] = (), quick: bool = True, seed: int = 0
) -> dict[str, Any]:
    """The comparison as plain data (schema `optrode.function-comparison/1`), best first.

    `task`: digits, text, inr, or the path of a CSV file, whose column `target` is learnt (the last by default).
    `functions`: names beside the usual dozen; a full run adds the methods of papers at their defaults. Every candidate
    gets the same seeds, batches and first weights, and its own learning rate, chosen on data that is not tested on.

    Raises `UnknownName` for a task or a function, `MissingFile`, `BadFile`, `BadInput`.
    """
    found = find_task(task, target)
    size = size_of(found, quick)
    candidates = candidates_of(functions, size)
    budget = budget_of(
        found,
        seeds=tuple(range(seed, seed + size.seeds)),
        rates=size.rates,
        steps=max(20, int(size.steps * found.steps)),
    )
    build = network_for(found)
    with Steps(f"comparing activation functions on {found.name}") as steps:
        trained = [
            train(found, candidate, build, budget) for candidate in steps.each(candidates, lambda one: one.label)
        ]
    return describe(found, budget, trained, {one.label: one for one in candidates})


def candidates_of(functions: Sequence[str], size: Size) -> list[ActivationMethod]:
    """The usual functions, those that were named, and in a full run what papers add; every label once."""
    made: list[ActivationMethod] = [NamedFunction(name) for name in [*USUAL, *functions]]
    # A misspelt name is told before anything is trained.
    for one in made:
        one.module(4)
    made += _of_papers() if size.methods else []
    return list({one.label.lower(): one for one in reversed(made)}.values())[::-1]


def _of_papers() -> list[ActivationMethod]:
    folder = Path(__file__).parent / "methods"
    found = []
    for method in methods_of(f"{__package__}.methods", str(folder)).values():
        kind = getattr(importlib.import_module(method.module), method.name)
        if issubclass(kind, ActivationMethod) and kind.role == "method" and method.id != "survey-400":
            found.append(kind())
    return found


def network_for(task: Task) -> Build:
    """The network of a task, in the words of `NETWORKS`."""
    if task.name == "text":
        return character_model(task.outputs, window=task.inputs[0])
    if task.name == "inr":
        return coordinate_mlp()
    return mlp(math.prod(task.inputs), (64, 64), task.outputs)


# The result ----------------------------------------------------------------------------------------------------------


def describe(
    task: Task, budget: Budget, trained: Sequence[Trained], methods: dict[str, ActivationMethod]
) -> dict[str, Any]:
    order = sorted(trained, key=lambda one: (task.better(float(np.mean(one.scores))), -one.diverged), reverse=True)
    agreed = agreement(order) if len(order) > 2 and len(budget.seeds) > 1 else None
    chance: dict[str, float | None] = dict(first(order)) if len(budget.seeds) >= ENOUGH_SEEDS else {}
    places = ranks(order).mean(0)
    rows = [
        {
            "function": one.label,
            "kind": methods[one.label].role,
            "score": _score(task, one),
            "scores": list(one.scores),
            "behind": gain(order[0], one).as_dict() if one is not order[0] and _whole(one) else None,
            "first": chance.get(one.label),
            "rank": float(place),
            "rate": one.rate,
            "tuning": {str(rate): value for rate, value in one.tuning.items()},
            "diverged": one.diverged,
            **{name: one.health.get(name) for name in ("gradients", "dead", "sparsity", "kept")},
            "seconds_per_step": one.seconds,
            "curve": list(one.runs[0].curve),
        }
        for one, place in zip(order, places, strict=True)
    ]
    return {
        "schema": SCHEMA,
        "family": "functions",
        "title": f"Activation functions on {task.name}",
        "headline": headline(task, rows, agreed),
        "warnings": warnings(rows, agreed),
        "task": {"name": task.name, "measure": task.measure, "higher": task.higher},
        "protocol": {
            "network": NETWORKS.get(task.name, NETWORKS["digits"]), "seeds": list(budget.seeds),
            "rates": list(budget.rates), "steps": budget.steps, "batch": budget.batch,
        },
        "agreement": agreed,
        "rows": rows,
    }  # fmt: skip


def _whole(trained: Trained) -> bool:
    """Whether all scores are numbers: a loss is infinite where training blew up."""
    return all(map(math.isfinite, trained.scores))


def _score(task: Task, trained: Trained) -> dict[str, float | None]:
    if not _whole(trained):
        return dict.fromkeys(_INTERVAL)
    found = interval_over_seeds(trained.scores).as_dict()
    # A share lies between 0 and 1; Student's interval does not know.
    return {name: min(max(value, 0.0), 1.0) if task.measure == "accuracy" else value for name, value in found.items()}


def headline(task: Task, rows: Sequence[dict[str, Any]], agreed: float | None) -> str:
    """What can be said, contrary results first."""
    best = rows[0]
    if best["score"]["value"] is None:
        return "Training blew up with every function, in some seed: the learning rates are too high for this data."
    # Where training blew up there is no difference to measure, and nothing to be tied with.
    tied = [row["function"] for row in rows[1:] if row["behind"] is not None and row["behind"]["low"] <= 0]
    lead = f"{best['function']} has the best {task.measure}, {best['score']['value']:.4g}"
    if len(tied) == len(rows) - 1:
        return f"This data cannot tell the functions apart: {lead}, and none of the others is behind it for certain."
    if tied:
        shown = ", ".join(tied[:6]) + (f" and {len(tied) - 6} more" if len(tied) > 6 else "")
        return f"No single function is the best: {lead}, but {shown} cannot be told from it over these seeds."
    doubt = "" if agreed is None or agreed >= CLEAR else " Seeds do not agree on the order behind it."
    return f"{lead}, ahead of all others over these seeds.{doubt}"


def warnings(rows: Sequence[dict[str, Any]], agreed: float | None) -> list[str]:
    found = []
    if agreed is not None and agreed < CLEAR:
        found.append(
            f"Two seeds rank the functions with a correlation of {agreed:.2f} only: this data cannot rank them, more "
            "seeds or more data might."
        )
    lost = [row["function"] for row in rows if row["diverged"]]
    if lost:
        found.append(f"Training blew up at the best rate, in some seed: {', '.join(lost)}.")
    edge = [row["function"] for row in rows if _at_an_end(row)]
    if edge:
        found.append(
            f"The best learning rate is at an end of those that were tried: {', '.join(edge[:6])}"
            + (f" and {len(edge) - 6} more" if len(edge) > 6 else "") + "; another might be better."
        )  # fmt: skip
    return found


def _at_an_end(row: dict[str, Any]) -> bool:
    rates = sorted(float(rate) for rate in row["tuning"])
    return len(rates) > 2 and row["rate"] in (rates[0], rates[-1])


def check_result(result: dict[str, Any]) -> dict[str, Any]:
    """The same result, if it is one of these. Raises `BadInput`."""
    if result.get("schema") != SCHEMA or not isinstance(result.get("rows"), list):
        raise BadInput("this is no comparison of activation functions: give what optrode compare functions wrote")
    return result
