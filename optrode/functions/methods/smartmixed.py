"""A function for every neuron, chosen by training and then kept (SmartMixed, arXiv 2510.22450)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ...errors import BadInput
from ..zoo import get
from .protocol import ActivationMethod

POOL = ("relu", "sigmoid", "tanh", "leaky relu", "elu", "selu")
_BOUND, _HEAD_START = 10.0, 1e-3


@dataclass(frozen=True)
class SmartMixed(ActivationMethod):
    """Every neuron chooses among a pool by a hard Gumbel softmax; after a first phase its choice is fixed.

    pool: names of functions. tau: temperature. first: share of the steps in which is chosen (the authors' code: 50 of
    400 epochs); 0 keeps the random start, the baseline that the choice has to beat. clamped: outputs stay in [-10, 10]
    in the second phase as in the first; the authors' code drops that at the switch. In evaluation no noise is drawn,
    where the authors' code draws it. Random numbers are torch's.
    """

    id: ClassVar[str] = "smartmixed"
    title: ClassVar[str] = "SmartMixed"
    paper: ClassVar[str] = "2510.22450"

    pool: tuple[str, ...] = POOL
    tau: float = 0.5
    first: float = 0.125
    clamped: bool = True

    @property
    def label(self) -> str:
        return "random choice" if self.first == 0 else f"SmartMixed, first {self.first:g}"

    def module(self, width: int, *, axis: int = -1) -> nn.Module:
        if len(self.pool) < 2:
            raise BadInput("a choice needs a pool of at least two functions")
        if axis != -1:
            raise BadInput("neurons stand on the last axis here: give it linear layers")
        return ChosenFunctions(self, width)

    def before_step(self, network: nn.Module, step: int, steps: int) -> None:
        if step >= round(self.first * steps):
            self.after_training(network)

    def after_training(self, network: nn.Module) -> None:
        for part in network.modules():
            if isinstance(part, ChosenFunctions):
                part.settle()


class ChosenFunctions(nn.Module):
    """One layer: logits [neuron, function] while it chooses, one function a neuron once it has."""

    def __init__(self, method: SmartMixed, width: int):
        super().__init__()
        self.method = method
        self.functions = nn.ModuleList(get(name).module() for name in method.pool)
        start = torch.zeros(width, len(method.pool))
        start[torch.arange(width), torch.randint(len(method.pool), (width,))] = _HEAD_START
        self.logits = nn.Parameter(start)
        self.started = start.argmax(-1)
        self.groups: list[Tensor] | None = None
        self._noise = torch.Generator().manual_seed(int(torch.randint(2**31, ())))

    @property
    def choice(self) -> Tensor:
        """The function of every neuron, by its place in the pool."""
        return self.logits.detach().argmax(-1)

    def settle(self) -> None:
        """Fix the choice; the logits are trained no more."""
        if self.groups is None:
            self.groups = [(self.choice == number).nonzero().flatten() for number in range(len(self.functions))]
            self.logits.requires_grad_(False)

    def forward(self, z: Tensor) -> Tensor:
        if self.groups is not None:
            return self._grouped(z, self.groups)
        answers = torch.stack([function(z).clamp(-_BOUND, _BOUND) for function in self.functions], -1)
        return (answers * self._weights()).sum(-1).clamp(-_BOUND, _BOUND)

    def _weights(self) -> Tensor:
        """One function a neuron, with the gradient of the softmax."""
        logits = self.logits
        if not self.training:
            return nn.functional.one_hot(self.choice, logits.shape[-1]).to(logits.dtype)
        uniform = torch.rand(logits.shape, generator=self._noise).clamp_min(1e-20)
        soft = ((logits - (-uniform.log()).log()) / self.method.tau).softmax(-1)
        hard = nn.functional.one_hot(soft.argmax(-1), logits.shape[-1]).to(soft.dtype)
        return (hard - soft).detach() + soft

    def _grouped(self, z: Tensor, groups: Sequence[Tensor]) -> Tensor:
        """Each function on its own neurons alone."""
        given = torch.cat([f(z[..., rows]) for f, rows in zip(self.functions, groups, strict=True)], -1)
        order = torch.cat(list(groups)).argsort()
        found = given[..., order]
        return found.clamp(-_BOUND, _BOUND) if self.method.clamped else found

    def extra_repr(self) -> str:
        return f"width={len(self.logits)}, {'chosen' if self.groups is not None else 'choosing'}"


def shares(network: nn.Module) -> list[dict[str, float]]:
    """For each layer, the share of neurons that have each function."""
    found = []
    for part in network.modules():
        if isinstance(part, ChosenFunctions):
            counted = Counter(part.choice.tolist())
            width = len(part.logits)
            found.append({name: counted[number] / width for number, name in enumerate(part.method.pool)})
    return found


def moved(network: nn.Module) -> float:
    """Share of neurons whose choice is another one than at the start."""
    parts = [part for part in network.modules() if isinstance(part, ChosenFunctions)]
    changed = sum(int((part.choice != part.started).sum()) for part in parts)
    return changed / max(1, sum(len(part.logits) for part in parts))
