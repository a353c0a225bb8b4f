"""How well a trained network's signals are: gradients, units that never answer, zeros, bytes kept for the backward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .tasks import Part, Task

_EXAMPLES = 256
_STILL = 1e-6


@dataclass(frozen=True)
class Health:
    """`gradients`: norm of the first weight's gradient over that of the last. `dead`: share of hidden units that give
    the same for all examples. `sparsity`: share of outputs that are zero. `kept`: bytes kept for one backward."""

    gradients: float
    dead: float
    sparsity: float
    kept: float


def measure_health(task: Task, network: nn.Module, activations: Sequence[nn.Module], fit: Part) -> Health:
    """Of one forward and backward over some examples that were trained on."""
    rows = fit.pick(torch.arange(min(_EXAMPLES, len(fit))))
    outputs: list[Tensor] = []
    handles = [module.register_forward_hook(lambda _, __, given: outputs.append(given)) for module in activations]
    kept: dict[int, int] = {}

    def pack(value: Tensor) -> Tensor:
        kept[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        return value

    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
            loss = task.loss(network(rows.inputs), rows.targets)
    finally:
        for handle in handles:
            handle.remove()
    return Health(_ratio(network, loss), *_of_outputs(outputs), float(sum(kept.values())))


def _ratio(network: nn.Module, loss: Tensor) -> float:
    weights = [p for p in network.parameters() if p.dim() > 1 and p.requires_grad]
    gradients: Any = torch.autograd.grad(loss, [weights[0], weights[-1]], allow_unused=True)
    first, last = (0.0 if g is None else float(g.norm()) for g in gradients)
    return first / max(last, 1e-30)


def _of_outputs(outputs: Sequence[Tensor]) -> tuple[float, float]:
    """Shares of dead units and of zeros."""
    if not outputs:
        return 0.0, 0.0
    units = dead = zeros = numbers = 0
    for value in outputs:
        flat = value.detach().flatten(1)
        dead += int(((flat.amax(0) - flat.amin(0)) <= _STILL).sum())
        units += flat.shape[1]
        zeros += int((flat == 0).sum())
        numbers += flat.numel()
    return dead / units, zeros / numbers
