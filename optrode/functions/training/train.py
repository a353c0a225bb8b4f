"""Training one candidate: the same batches and first weights for all, the learning rate chosen on the tune part."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ...engine.progress import Steps
from ...errors import BadInput
from ..methods.protocol import ActivationMethod
from .health import Health, measure_health
from .networks import Build
from .tasks import Part, Split, Task

_CURVE = 20
_AT_ONCE = 1024
OPTIMISERS = ("adam", "sgd")


@dataclass(frozen=True)
class Budget:
    """What every run of a comparison gets: seeds, learning rates to choose from, steps, batch and optimiser.

    `optimiser`: `adam` (AdamW) or `sgd` (momentum 0.9). `clip`: largest norm of the gradient, None for none. Rates fall
    to zero along a cosine where `cosine`.
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2)
    steps: int = 400
    batch: int = 64
    optimiser: str = "adam"
    weight_decay: float = 0.0
    clip: float | None = None
    cosine: bool = True

    def __post_init__(self) -> None:
        if self.optimiser not in OPTIMISERS:
            raise BadInput(f"optimiser '{self.optimiser}' is not known: use adam or sgd")
        if not self.seeds or not self.rates or self.steps < 1 or self.batch < 1:
            raise BadInput("a budget needs seeds, rates, at least one step and a batch of at least one example")


def budget_of(task: Task, **changes: Any) -> Budget:
    """The budget that a task comes with, changed where asked."""
    return replace(Budget(rates=task.rates, steps=task.steps, batch=task.batch), **changes)


@dataclass(frozen=True)
class Run:
    """One network that was trained. `tune`, `test`: scores. `curve`: losses along the way. `diverged`: it blew up."""

    seed: int
    rate: float
    tune: float
    test: float
    curve: tuple[float, ...]
    seconds: float
    diverged: bool
    health: Health | None = None


@dataclass(frozen=True)
class Trained:
    """What a candidate reached. `scores`: of the test part, one a seed, at the `rate` that was best on the tune part
    (mean over seeds). `tuning`: mean tune score of every rate. `seconds`: of one step."""

    label: str
    task: str
    higher: bool
    rate: float
    scores: tuple[float, ...]
    tuning: dict[float, float]
    runs: tuple[Run, ...]

    @property
    def seconds(self) -> float:
        return sum(run.seconds for run in self.runs) / len(self.runs)

    @property
    def diverged(self) -> int:
        """How many seeds blew up at the chosen rate."""
        return sum(run.diverged for run in self.runs)

    @property
    def health(self) -> dict[str, float]:
        """Means over seeds of the runs that did not blow up; see `Health`."""
        rows = [asdict(run.health) for run in self.runs if run.health is not None]
        return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]} if rows else {}

    def as_dict(self) -> dict[str, Any]:
        return {
            "label": self.label, "rate": self.rate, "scores": list(self.scores), "tuning": self.tuning,
            "diverged": self.diverged, "seconds_per_step": self.seconds, "health": self.health,
        }  # fmt: skip


def train(
    task: Task, method: ActivationMethod, build: Build, budget: Budget | None = None, *, steps: Steps | None = None
) -> Trained:
    """Train a network with a method for every rate and seed; choose the rate on tune, report test.

    A run that blows up has the task's worst score. Costs rates x seeds runs.
    """
    budget = budget or budget_of(task)
    splits = {seed: task.split(seed) for seed in budget.seeds}
    found: dict[float, list[Run]] = {}
    for rate in budget.rates:
        if steps is not None:
            steps.at(f"{method.label}, rate {rate:g}")
        found[rate] = [run_once(task, method, build, budget, seed, rate, splits[seed]) for seed in budget.seeds]
    tuning = {rate: sum(task.better(run.tune) for run in runs) / len(runs) for rate, runs in found.items()}
    best = max(tuning, key=lambda rate: tuning[rate])
    return Trained(
        method.label, task.name, task.higher, best, tuple(run.test for run in found[best]),
        {rate: task.better(value) for rate, value in tuning.items()}, tuple(found[best]),
    )  # fmt: skip


def run_once(
    task: Task, method: ActivationMethod, build: Build, budget: Budget, seed: int, rate: float, split: Split
) -> Run:
    """One network. Its first weights and its batches depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        # What a method draws is its own affair, but the same in every run of this seed.
        torch.manual_seed(seed)
        made: list[nn.Module] = []
        network = build(_remembering(method.module, made), seed)
        order = torch.Generator().manual_seed(seed)
        rows = torch.randint(len(split.fit), (budget.steps, budget.batch), generator=order)
        method.initialise(network, split.fit.inputs[rows[0]])
        started = time.perf_counter()
        curve = _loop(task, method, network, budget, rate, split.fit, rows)
        seconds = (time.perf_counter() - started) / max(1, len(curve))
        whole = len(curve) == budget.steps
        if whole:
            method.after_training(network)
        network.eval()
        tune, test = (score(task, network, part) if whole else task.worst for part in (split.tune, split.test))
        health = measure_health(task, network, made, split.fit) if whole else None
    thin = tuple(curve[:: max(1, len(curve) // _CURVE)])
    return Run(seed, rate, tune, test, thin, seconds, not whole, health)


def score(task: Task, network: nn.Module, part: Part) -> float:
    """The score of a network on a part of the data; the worst there is where it is not finite."""
    with torch.no_grad():
        outputs = torch.cat([network(rows) for rows in part.inputs.split(_AT_ONCE)])
        found = task.score(outputs, part.targets)
    return found if math.isfinite(found) else task.worst


def _loop(
    task: Task, method: ActivationMethod, network: nn.Module, budget: Budget, rate: float, fit: Part, rows: Tensor
) -> list[float]:
    """Losses of all steps, fewer where one was not finite."""
    optimiser = _optimiser(method, network, budget, rate)
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    losses: list[float] = []
    network.train()
    for step, chosen in enumerate(rows):
        method.before_step(network, step, budget.steps)
        if budget.cosine:
            now = rate * 0.5 * (1 + math.cos(math.pi * step / budget.steps))
            for group in optimiser.param_groups:
                group["lr"] = now
        loss = task.loss(network(fit.inputs[chosen]), fit.targets[chosen])
        extra = method.penalty(network)
        whole = loss if extra is None else loss + extra
        value = float(whole.detach())
        if not math.isfinite(value):
            return losses
        losses.append(value)
        optimiser.zero_grad(set_to_none=True)
        whole.backward()
        if budget.clip is not None:
            nn.utils.clip_grad_norm_(parameters, budget.clip)
        optimiser.step()
    return losses


def _optimiser(method: ActivationMethod, network: nn.Module, budget: Budget, rate: float) -> torch.optim.Optimizer:
    free = {id(parameter) for parameter in method.without_decay(network)}
    decayed = [parameter for parameter in network.parameters() if id(parameter) not in free]
    groups = [{"params": decayed, "weight_decay": budget.weight_decay}]
    kept = [parameter for parameter in network.parameters() if id(parameter) in free]
    if kept:
        groups.append({"params": kept, "weight_decay": 0.0})
    if budget.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=0.9)
    return torch.optim.AdamW(groups, lr=rate, fused=True)


def _remembering(make: Callable[..., nn.Module], made: list[nn.Module]) -> Callable[..., nn.Module]:
    def remembered(width: int, *, axis: int = -1) -> nn.Module:
        made.append(make(width, axis=axis))
        return made[-1]

    return remembered


def train_all(
    task: Task,
    methods: Sequence[ActivationMethod],
    build: Build,
    budget: Budget | None = None,
    *,
    steps: Steps | None = None,
) -> list[Trained]:
    """`train` for several candidates under one budget, in the order given."""
    return [train(task, method, build, budget, steps=steps) for method in methods]
