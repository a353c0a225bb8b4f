"""Functions as modules: parameters that are trained or fixed, one for a layer, a channel or a neuron."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..errors import BadInput, UnknownName, did_you_mean
from .protocol import Context, Function

PER = ("layer", "channel", "neuron")


class Activation(nn.Module):
    """A function with parameters of its own.

    width: number of features, or the shape of one example for `per="neuron"`; needed wherever sizes depend on it.
    per: whether each `layer` has one set of parameters, each `channel` its own, or each `neuron`.
    axis: where channels stand in the input (-1, or 1 for images). Functions that mix features mix along it.
    trainable: True or False for all parameters; None trains those that papers train.
    parameters: starting values that replace defaults. seed: of the random numbers of training; `replay` starts anew.

    Raises `BadInput` where a width is missing, `UnknownName` for a parameter the function has not.

    >>> import optrode as op
    >>> sorted(dict(op.functions.get("prelu").module(8, per="channel").named_parameters()))
    ['a']
    """

    saved_as: ClassVar[str] = "function"

    def __init__(
        self,
        function: Function,
        width: int | tuple[int, ...] | None = None,
        *,
        per: str = "layer",
        axis: int = -1,
        trainable: bool | None = None,
        parameters: Mapping[str, float | Tensor] | None = None,
        seed: int = 0,
    ):
        super().__init__()
        if per not in PER:
            raise BadInput(f"parameters per '{per}': {did_you_mean(per, PER)}")
        self.function, self.per, self.axis, self.seed = function, per, axis, seed
        sizes = (width,) if isinstance(width, int) else width
        if per != "layer" and sizes is None:
            raise BadInput(f"parameters per {per} need a width: module(width, per='{per}')")
        self.sizes = sizes
        features = sizes[axis] if sizes and len(sizes) > 1 else sizes[0] if sizes else None
        given = dict(parameters or {})
        for name, default in function.initial(features).items():
            value = torch.as_tensor(given.pop(name, default), dtype=torch.get_default_dtype())
            if hasattr(self, name):
                raise BadInput(f"a module cannot have a parameter called '{name}': take another name in the formula")
            self.put(name, self._spread(value), trained=function.trained(name) if trainable is None else trainable)
        if given:
            name = next(iter(given))
            raise UnknownName(
                f"{function.name} has no parameter '{name}': {did_you_mean(name, function.initial(features))}"
            )
        self._names = tuple(function.initial(features))
        self._state = tuple(function.state(features))
        for name, value in function.state(features).items():
            self.register_buffer(f"running_{name}", value.to(torch.get_default_dtype()))
        self._generators: dict[torch.device, torch.Generator] = {}

    def put(self, name: str, value: Tensor, *, trained: bool) -> None:
        """Take `value` for a parameter, which is trained, or a buffer, which is not."""
        self._parameters.pop(name, None)
        self._buffers.pop(name, None)
        if trained:
            self.register_parameter(name, nn.Parameter(value))
        else:
            self.register_buffer(name, value)

    @property
    def title(self) -> str:
        """The name of the function."""
        return self.function.name

    def _spread(self, value: Tensor) -> Tensor:
        """A copy for each channel or neuron in front of the parameter's own axes."""
        if self.per == "layer":
            return value.detach().clone()
        assert self.sizes is not None
        lead = (
            self.sizes
            if self.per == "neuron"
            else self.sizes[-1:]
            if len(self.sizes) == 1
            else (self.sizes[self.axis],)
        )
        if value.dim() and value.shape[: len(lead)] == lead:
            return value.detach().clone()
        return value.detach().expand(*lead, *value.shape).clone()

    def replay(self, seed: int | None = None) -> Activation:
        """Start the random numbers anew, so that the same inputs draw the same again."""
        self.seed = self.seed if seed is None else seed
        self._generators.clear()
        return self

    def _in_precision_of(self, x: Tensor) -> dict[str, Tensor]:
        wide = torch.promote_types(x.dtype.to_real(), torch.float32)
        return {name: getattr(self, name).to(wide) for name in self._names}

    def forward(self, x: Tensor) -> Tensor:
        move = (
            self.axis not in (-1, x.dim() - 1)
            and self.per != "neuron"
            and (self._names or not self.function.elementwise)
        )
        keep = getattr(self.function, "keeps_axes", False)
        if move and not keep:
            x = x.movedim(self.axis, -1)
        state = {name: getattr(self, f"running_{name}") for name in self._state}
        result = self.function.evaluate(x, self._in_precision_of(x), Context(self.training, self._generator(x), state))
        return result.movedim(-1, self.axis) if move and not keep else result

    def _generator(self, x: Tensor) -> torch.Generator | None:
        if not (self.training and self.function.random):
            return None
        if x.device not in self._generators:
            self._generators[x.device] = torch.Generator(x.device).manual_seed(self.seed)
        return self._generators[x.device]

    def extra_repr(self) -> str:
        return f"{self.function.name}, per={self.per!r}" + (f", width={self.sizes}" if self.sizes else "")

    def __getstate__(self) -> dict[str, Any]:
        """Generators belong to a process: a copy starts its random numbers anew."""
        return {**self.__dict__, "_generators": {}}
