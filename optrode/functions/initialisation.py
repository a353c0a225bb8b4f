"""What initialisers of networks share: which modules have weights, in what order they run, and drawing those weights.

Random numbers are those of `torch`, as in `torch.nn.init`: seed them with `torch.manual_seed`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..errors import BadInput

WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def weighted_layers(network: nn.Module, example: Tensor) -> list[nn.Module]:
    """Linear and convolutional modules in the order in which they first run on `example`, a batch of inputs.

    Raises `BadInput` where none runs. Cost: one forward.
    """
    order: list[nn.Module] = []

    def ran(module: nn.Module, args: object, output: object) -> None:
        if module not in order:
            order.append(module)

    hooks = [part.register_forward_hook(ran) for part in network.modules() if isinstance(part, WEIGHTED)]
    training = network.training
    try:
        with torch.no_grad():
            network.eval()(example)
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    if not order:
        raise BadInput("the network runs no linear or convolutional module, so there are no weights to draw")
    return order


def fan_in(module: nn.Module) -> int:
    """How many numbers one output is made of: the kernel's size counts for convolutions."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight[0].numel()


@torch.no_grad()
def draw(module: nn.Module, gain: float, *, bias_deviation: float = 0.0, uniform: bool = False) -> None:
    """New weights of deviation gain / sqrt(fan-in), normal or uniform, and normal biases, or none."""
    weight, bias = module.weight, module.bias
    assert isinstance(weight, Tensor)
    deviation = gain / math.sqrt(fan_in(module))
    if uniform:
        weight.uniform_(-math.sqrt(3) * deviation, math.sqrt(3) * deviation)
    else:
        weight.normal_(0.0, deviation)
    if isinstance(bias, Tensor):
        bias.normal_(0.0, bias_deviation) if bias_deviation else bias.zero_()
