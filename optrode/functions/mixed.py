"""Different functions for different neurons of one layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..errors import BadInput
from .module import Activation
from .protocol import Function
from .zoo import get

Choice = str | Function | Activation


class Mixed(nn.Module):
    """Each neuron its own function: `functions` says which neurons have which.

    functions: {name or `Function` or `Activation`: neurons}, or pairs of the same. Names get modules with parameters of
        their own, one set for each function, or one for each of its neurons with `per="neuron"`.
    width: number of neurons, which stand along `axis`.

    Neurons that nobody names pass on what they get; in a swap they keep the network's own function. Raises `BadInput`
    for neurons that are not there, or that two functions have.

    >>> Mixed({"relu": [0, 1], "tanh": [2]}, 4)(torch.tensor([-1.0, 1.0, 1.0, -1.0]))
    tensor([ 0.0000,  1.0000,  0.7616, -1.0000])
    """

    saved_as: ClassVar[str] = "mixed"

    def __init__(
        self,
        functions: Mapping[Choice, Sequence[int]] | Sequence[tuple[Choice, Sequence[int] | Tensor]],
        width: int,
        *,
        axis: int = -1,
        per: str = "layer",
    ):
        super().__init__()
        self.width, self.axis = width, axis
        pairs = list(functions.items()) if isinstance(functions, Mapping) else list(functions)
        if not pairs:
            raise BadInput("no function was given: name at least one, with its neurons")
        made = []
        for place, (choice, neurons) in enumerate(pairs):
            chosen = torch.as_tensor(list(neurons) if not isinstance(neurons, Tensor) else neurons, dtype=torch.int64)
            self.register_buffer(f"neurons_{place}", chosen, persistent=False)
            made.append(_module(choice, len(chosen), axis, per))
        self.functions = nn.ModuleList(made)
        self._check()

    def _check(self) -> None:
        every = torch.cat(self.neurons())
        if any(len(one) == 0 for one in self.neurons()):
            raise BadInput("a function was given no neurons: leave it out")
        if int(every.min()) < 0 or int(every.max()) >= self.width:
            raise BadInput(f"neuron {int(every.max() if int(every.min()) >= 0 else every.min())} is not there: "
                           f"they are 0 to {self.width - 1}")  # fmt: skip
        found, often = every.unique(return_counts=True)
        if len(found) < len(every):
            raise BadInput(f"neuron {int(found[often > 1][0])} has two functions: give each neuron one")

    def neurons(self) -> list[Tensor]:
        """Which neurons each function has, int64, in the order of `functions`."""
        return [getattr(self, f"neurons_{place}") for place in range(len(self.functions))]

    def forward(self, x: Tensor) -> Tensor:
        return self.over(x, x)

    def over(self, output: Tensor, x: Tensor) -> Tensor:
        """`output` with the chosen neurons replaced by their functions of `x`; both have one shape."""
        if x.shape[self.axis] != self.width:
            raise BadInput(f"the layer has {x.shape[self.axis]} neurons along axis {self.axis}, not {self.width}")
        new = output
        for function, neurons in zip(self.functions, self.neurons(), strict=True):
            given = function(x.index_select(self.axis, neurons))
            new = new.index_copy(self.axis, neurons, given.to(new.dtype))
        return new

    @property
    def title(self) -> str:
        """Such as `ReLU for 3 neurons, tanh for 1`."""
        said = [
            f"{function.title} for {len(neurons)}{' neurons' if place == 0 else ''}"
            for place, (function, neurons) in enumerate(zip(self.functions, self.neurons(), strict=True))
        ]
        return ", ".join(said)

    def extra_repr(self) -> str:
        return f"width={self.width}, axis={self.axis}: {self.title}"


def _module(choice: Choice, count: int, axis: int, per: str) -> Activation:
    if isinstance(choice, Activation):
        return choice
    function = get(choice) if isinstance(choice, str) else choice
    if not isinstance(function, Function):
        raise BadInput(f"a {type(function).__name__} is no function for some neurons: name one of the zoo")
    if per == "layer":
        return function.module(count if not function.elementwise else None, axis=axis)
    return function.module(count, per="channel", axis=axis)
