"""What a method about activation functions is: a module for one hidden layer, and what its paper adds to training."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from ...parts.method import Method
from ..zoo import get


@dataclass(frozen=True)
class ActivationMethod(Method):
    """Base of the family. A method gives `module`; the other parts do nothing unless its paper says something.

    `role` tells a table what a row is: method, baseline or control.
    """

    role: ClassVar[str] = "method"

    @property
    def label(self) -> str:
        """What a table calls this setting of the method."""
        return self.title

    def module(self, width: int, *, axis: int = -1) -> nn.Module:
        """What stands after one linear or convolutional layer of `width` features along `axis`; shapes are kept.

        Raises `BadInput` for settings that make no function.
        """
        raise NotImplementedError

    def initialise(self, network: nn.Module, example: Tensor) -> None:
        """Change the weights of a network that was just made with this method's modules; `example` is one batch of
        its inputs. By default the network's own start is kept."""

    def penalty(self, network: nn.Module) -> Tensor | None:
        """A scalar for the loss of the last forward, None for nothing."""
        return None

    def before_step(self, network: nn.Module, step: int, steps: int) -> None:
        """Called before each of `steps` training steps, `step` counts from 0: schedules and phases."""

    def after_training(self, network: nn.Module) -> None:
        """Called once before the network is measured."""

    def without_decay(self, network: nn.Module) -> Iterable[nn.Parameter]:
        """Parameters that weight decay leaves alone."""
        return ()


def parameters_of(network: nn.Module, *kinds: type[nn.Module]) -> list[nn.Parameter]:
    """What modules of some kinds train themselves: for `without_decay`."""
    return [p for part in network.modules() if isinstance(part, kinds) for p in part.parameters(recurse=False)]


@dataclass(frozen=True)
class NamedFunction(ActivationMethod):
    """A function of the zoo by its name, with the parameters that its paper trains. Baselines are made with it.

    >>> NamedFunction("silu").module(8)(__import__("torch").zeros(2, 8)).shape
    torch.Size([2, 8])
    """

    role: ClassVar[str] = "baseline"

    function: str = "relu"
    per: str = "layer"

    @property
    def label(self) -> str:
        return self.function

    def module(self, width: int, *, axis: int = -1) -> nn.Module:
        return get(self.function).module(width, per=self.per, axis=axis)
