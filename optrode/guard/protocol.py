"""What the methods of this family share: reading in parts, and how well a score tells two sets of inputs apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import BadInput
from ..model import Model
from ..parts.method import Method
from ..scores import Score

# Pictures in one forward: 32 of 224 x 224 keep two cores busy and a small network's sites under 1 GB.
EXAMPLES_AT_ONCE = 32


@dataclass(frozen=True)
class GuardMethod(Method):
    """Base of methods whose `fit(model, inputs)` gives a `Score` or an `Edit` for the penultimate site.

    `site` is where the head reads: `pooled` in convolutional networks and some encoders, `final` in others.
    """

    site: str = "pooled"

    def fit(self, model: Model, inputs: Any) -> Any:
        raise NotImplementedError


@dataclass(frozen=True)
class Separation:
    """How well a score tells inputs like the training data (positive) from others.

    `auroc`: probability that a random positive scores above a random other, ties count half. `fpr95`: share of others
    above the threshold that 95 % of the positives pass. `positives`, `others`: numbers of inputs.
    """

    auroc: float
    fpr95: float
    positives: int
    others: int

    def __str__(self) -> str:
        return f"AUROC {self.auroc:.1%}, FPR at 95 % {self.fpr95:.1%} ({self.positives} against {self.others} inputs)"


def separation(inside: Tensor, outside: Tensor) -> Separation:
    """The separation of two sets of scores, [example] each. Raises `BadInput` where one is empty.

    >>> separation(torch.tensor([2.0, 3.0]), torch.tensor([1.0, 2.5])).auroc
    0.75
    """
    if not len(inside) or not len(outside):
        raise BadInput("both sets of inputs must have at least one example")
    inside, outside = inside.double(), outside.double()
    above = (inside[:, None] > outside).double() + 0.5 * (inside[:, None] == outside).double()
    # The largest threshold that at least 95 % of the positives reach.
    threshold = inside.sort().values[int(0.05 * len(inside))]
    return Separation(float(above.mean()), float((outside >= threshold).double().mean()), len(inside), len(outside))


def scores(model: Model, score: Score, inputs: Any) -> Tensor:
    """A score of many inputs, [example] float on the CPU, read in parts; edits that are active take part."""
    return torch.cat([score(model.read(part, list(score.sites))).detach().cpu() for part in parts(inputs)])


def activations(model: Model, site: str, inputs: Any) -> Tensor:
    """One site of many inputs, [example, feature] float32 on the CPU. Raises `BadInput` for sites with other axes."""
    found = []
    for part in parts(inputs):
        acts = model.read(part, site)
        (address,) = acts
        if len(acts.axes[address]) != 2:
            axes = ", ".join(acts.axes[address])
            raise BadInput(f"{address} has the axes {axes}; a penultimate site has one vector for each example")
        found.append(acts[address].detach().float().cpu())
    return torch.cat(found)


def parts(inputs: Any) -> Iterator[Any]:
    """Tensors in parts along the examples; lists of prompts as they are, since reading sorts and divides them."""
    if isinstance(inputs, Tensor):
        yield from inputs.split(EXAMPLES_AT_ONCE)
    elif isinstance(inputs, dict):
        count = len(next(iter(inputs.values())))
        for start in range(0, count, EXAMPLES_AT_ONCE):
            yield {name: value[start : start + EXAMPLES_AT_ONCE] for name, value in inputs.items()}
    elif isinstance(inputs, Sequence) and len(inputs):
        yield inputs
    else:
        raise BadInput("no input was given: pass a tensor, a dictionary of tensors or prompts")
