"""Is the constant term that ReLU makes the reason why a network stays near its first weights?

Three classes of noisy cosines; two causal convolutions, the mean over time, and a small head. What stands after the
convolutions differs: nothing, nothing with a constant added to the input by class, ReLU, tanh (odd, so that it makes no
constant), GELU, and nothing with a mean of squares in place of the mean. All train at the paper's one rate, since the
distance from the start is the outcome.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..engine.progress import Steps
from ..functions.methods.protocol import NamedFunction
from ..functions.training.networks import Build, Factory, seeded
from ..functions.training.tasks import Part, Split, classification, shuffled
from ..functions.training.train import Trained, budget_of, train
from ..parts.statistics import Interval, interval_over_seeds
from ..parts.study import FIGURES, Finding, Study, above

FREQUENCIES, RATE, LENGTH, NOISE = (3.0, 5.0, 10.0), 32.0, 128, 0.1
CONSTANTS = tuple(a * math.sqrt(2) / 4 for a in (1, 5, 19))
FILTERS, KERNEL = 32, 3


@dataclass(frozen=True)
class Watched(NamedFunction):
    """A function, with the distance that each trained network's convolutions have moved, in order of training."""

    moved: list[float] = field(default_factory=list, compare=False)
    start: list[Tensor] = field(default_factory=list, compare=False)

    def initialise(self, network: nn.Module, example: Tensor) -> None:
        self.start[:] = [weight.detach().clone() for weight in _kernels(network)]

    def after_training(self, network: nn.Module) -> None:
        ends = _kernels(network)
        self.moved.append(math.sqrt(sum(float((a - b).square().sum()) for a, b in zip(ends, self.start, strict=True))))


def _kernels(network: nn.Module) -> list[Tensor]:
    return [part.weight.detach() for part in network.modules() if isinstance(part, nn.Conv1d)]


@dataclass(frozen=True, eq=False)
class Variant:
    """How a network was trained, and how far its convolutions moved, one number a seed."""

    trained: Trained
    moved: list[float]

    def __str__(self) -> str:
        return f"{sum(self.moved) / len(self.moved):.3f} (accuracy {_mean(self.trained.scores):.3f})"


def run(seeds: Sequence[int], full: bool, steps: Steps) -> list[Finding]:
    settings: dict[str, tuple[str, bool, Callable[[Tensor], Tensor]]] = {
        "linear": ("identity", False, average),
        "linear and constant": ("identity", True, average),
        "ReLU": ("relu", False, average),
        "tanh": ("tanh", False, average),
        "GELU": ("gelu", False, average),
        "linear, mean of squares": ("identity", False, energy),
    }
    found = {name: _variant(one, tuple(seeds), full, steps) for name, one in settings.items()}
    shown = "; ".join(f"{name} {one}" for name, one in found.items())
    return [
        _nearer("With ReLU the convolutions end nearer to their start than without", found, "ReLU", "linear"),
        _nearer(
            "A constant added to the input by class does the same without ReLU", found, "linear and constant", "linear"
        ),
        _nearer("tanh, which makes no constant, moves them farther than ReLU: the constant is the reason", found,
                "ReLU", "tanh"),
        _nearer("GELU, which makes one too, stays nearer than tanh", found, "GELU", "tanh", essential=False),
        _nearer("ReLU stays nearer than a linear network that can solve the task, by a mean of squares", found, "ReLU",
                "linear, mean of squares", essential=False),
        Finding("Distance from the start, and accuracy, of all", "chance: accuracy 0.333", shown, FIGURES, False,
                {name: one.trained.as_dict() | {"moved": one.moved} for name, one in found.items()}),
    ]  # fmt: skip


def _variant(
    setting: tuple[str, bool, Callable[[Tensor], Tensor]], seeds: tuple[int, ...], full: bool, steps: Steps
) -> Variant:
    function, constant, pool = setting
    task = classification("cosines", (1, LENGTH), 3, partial(cosines, 1024 if full else 256, constant))
    method = Watched(function)
    # Three fifths are to fit on; the paper's epochs are 48 steps.
    budget = budget_of(task, seeds=seeds, rates=(1e-3,), steps=2880 if full else 150, cosine=False)
    trained = train(task, method, network(pool), budget, steps=steps)
    return Variant(trained, method.moved)


def cosines(count: int, constant: bool, seed: int) -> Split:
    """`count` signals of each class with random phases, in noise; with the constants of the classes where asked."""
    draws = torch.Generator().manual_seed(1000 + seed)
    time = torch.arange(LENGTH) / RATE
    rows, targets = [], []
    for number, (frequency, added) in enumerate(zip(FREQUENCIES, CONSTANTS, strict=True)):
        phases = 2 * math.pi * torch.rand(count, 1, generator=draws)
        noise = NOISE * torch.randn(count, LENGTH, generator=draws)
        rows.append(torch.cos(2 * math.pi * frequency * time + phases) + noise + (added if constant else 0.0))
        targets.append(torch.full((count,), number))
    return shuffled(Part(torch.cat(rows)[:, None], torch.cat(targets)), seed)


def average(h: Tensor) -> Tensor:
    return h.mean(-1)


def energy(h: Tensor) -> Tensor:
    return h.square().mean(-1)


class Causal(nn.Module):
    """Two causal convolutions without bias, each with what follows it, a pool, and a head."""

    def __init__(self, activation: Factory, pool: Callable[[Tensor], Tensor]):
        super().__init__()
        self.first = nn.Conv1d(1, FILTERS, KERNEL, bias=False)
        self.second = nn.Conv1d(FILTERS, FILTERS, KERNEL, bias=False)
        self.after = nn.ModuleList(activation(FILTERS, axis=1) for _ in range(2))
        self.pool = pool
        self.head = nn.Sequential(nn.Linear(FILTERS, 32), nn.ReLU(), nn.Linear(32, 3))

    def forward(self, x: Tensor) -> Tensor:
        for layer, after in zip((self.first, self.second), self.after, strict=True):
            x = after(layer(F.pad(x, (KERNEL - 1, 0))))
        return self.head(self.pool(x))  # type: ignore[no-any-return]


def network(pool: Callable[[Tensor], Tensor]) -> Build:
    return lambda activation, seed: seeded(Causal(activation, pool), seed)


def _nearer(claim: str, found: dict[str, Variant], one: str, other: str, *, essential: bool = True) -> Finding:
    """Reproduced where the distance of the first is smaller over the whole interval of paired differences."""
    less: Interval = interval_over_seeds([b - a for a, b in zip(found[one].moved, found[other].moved, strict=True)])
    numbers: dict[str, Any] = {"less": asdict(less)}
    return Finding(
        claim, f"{other}: distance {found[other]}", f"{one}: distance {found[one]}; {less} less", above(less, 0.0),
        essential, numbers,
    )  # fmt: skip


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


STUDY = Study(
    id="relu-dc",
    title="The constant term of ReLU, and the distance that weights move",
    paper="2407.16556",
    shrunk="10 repeats instead of 100; 256 signals of 128 samples a class instead of 1024 of 256; 150 steps instead of "
    "60 epochs; no heart rate network",
    run=run,
    seeds=tuple(range(10)),
)
