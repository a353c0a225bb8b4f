"""Functions that are one expression of x and parameters: from the list, or from a user's own formula."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..errors import BadInput, UnknownName
from .elementwise import Elementwise, elementwise
from .expression import names_in
from .parser import FUNCTIONS, parse
from .protocol import Context, Function
from .shape import Shape, shape_of
from .table import Parameter, Row, forms

Draw = Callable[[Tensor, Mapping[str, Tensor], Context], dict[str, Tensor]]


@dataclass(frozen=True, eq=False, repr=False)
class FormulaFunction(Function):
    """An elementwise function. `stable` computes it where the row's own formula would overflow; `surrogate` is what
    its backward pass takes for the derivative; `draw` replaces parameters by random ones in training; `double` computes
    in float64 whatever the dtype, which one row needs."""

    defaults: dict[str, Parameter] = field(default_factory=dict)
    stable: str | None = None
    surrogate: str | None = None
    draw: Draw | None = None
    double: bool = False

    def __post_init__(self) -> None:
        used = names_in(parse(self.formula)) | (names_in(parse(self.surrogate)) if self.surrogate else set())
        for name in sorted(used - {"x"} - self.defaults.keys()):
            raise BadInput(f"the formula of {self.name} uses '{name}', which has no value: give it as a parameter")

    @property
    def parameters(self) -> dict[str, Parameter]:
        return self.defaults

    @property
    def random(self) -> bool:
        return self.draw is not None

    @cached_property
    def operation(self) -> Elementwise:
        """What computes it, with the parameters in the order of `parameters`."""
        backward = parse(self.surrogate) if self.surrogate else None
        return elementwise(parse(self.stable or self.formula), tuple(self.defaults), backward, double=self.double)

    @cached_property
    def shape(self) -> Shape:
        """Domain, range, monotony and so on, measured at the defaults."""
        return shape_of(self)

    def initial(self, width: int | None = None) -> dict[str, Tensor]:
        return {name: torch.tensor(one.default, dtype=torch.float64) for name, one in self.defaults.items()}

    def trained(self, name: str) -> bool:
        return self.defaults[name].trainable

    def evaluate(self, x: Tensor, values: Mapping[str, Tensor], context: Context) -> Tensor:
        if context.training and self.draw is not None:
            wide = x.to(torch.promote_types(x.dtype, torch.float32))
            values = {**values, **self.draw(wide, values, context)}
        return self.operation(x, [values[name] for name in self.defaults])

    def derivative(self, x: Tensor, **values: float | Tensor) -> Tensor:
        full = self._values(x, values)
        return self.operation.by(0)(x, [full[name] for name in self.defaults])


def from_formula(
    formula: str, *, parameters: Mapping[str, float] | None = None, name: str = "", derivative: str | None = None
) -> FormulaFunction:
    """A function of your own. `parameters` are its defaults, all of them trainable.

    The formula is parsed, never run as Python: numbers, `x`, parameters, `+ - * / ^`, the functions of
    `optrode.functions.FUNCTIONS`, pieces `x>=0: x; x<0: a*x` and local names `... where u=exp(x)`. `derivative` is a
    formula for the backward pass where it should not be the true derivative. Raises `BadInput`, `UnknownName`.

    >>> import torch
    >>> function = from_formula("x * sigmoid(b*x)", parameters={"b": 1.0})
    >>> function(torch.tensor([0.0, 1.0]), b=2.0)
    tensor([0.0000, 0.8808])
    """
    defaults: dict[str, Parameter] = {}
    for key, value in (parameters or {}).items():
        if not key.isidentifier() or key in ("x", "pi", "where") or key in FUNCTIONS:
            raise UnknownName(f"a parameter cannot be called '{key}': take another name")
        defaults[key] = Parameter(key, float(value), True, True)
    row = Row(name or formula, (), "own", formula, "", "formula of the user", "")
    return FormulaFunction(row, defaults, surrogate=derivative)


def from_row(row: Row) -> FormulaFunction:
    """The function of an elementwise row of the list."""
    from .draws import DRAWS, EVALUATION

    known = forms().get(row.name, {})
    defaults: dict[str, Any] = dict(row.parameters)
    for key, value in EVALUATION.get(row.name, {}).items():
        defaults[key] = Parameter(key, value)
    return FormulaFunction(
        row,
        defaults,
        known.get("stable", (None,))[0],
        known.get("surrogate", (None,))[0],
        DRAWS.get(row.name),
        double="precision" in known,
    )
