"""Where a product could be 0 * infinity in finite precision: one factor overflows while the other has vanished.

In exact arithmetic the factor that vanishes (an exponential) wins in every formula of the list, so the product is 0.
"""

from __future__ import annotations

from functools import cache

from .expression import Call, Expression, Number, depends

_BOUNDED = (
    "sgn", "sin", "cos", "arctan", "arcsin", "sech", "tanh", "sigmoid", "relu6", "erf", "Phi", "phi", "sinc",
    "lt", "le", "eq", "and", "not",
)  # fmt: skip
_VANISHING = ("exp", "sech", "sigmoid", "phi", "Phi", "div")
_GROWING = ("exp", "expm1", "sinh", "cosh", "div", "Gamma")


def needs_guard(u: Expression, v: Expression) -> bool:
    return (may_overflow(u) and may_vanish(v)) or (may_overflow(v) and may_vanish(u))


@cache
def may_overflow(u: Expression) -> bool:
    """Whether it can leave the range of floating point while x is in it."""
    if not isinstance(u, Call) or u.operation in _BOUNDED or not depends(u, "x"):
        return False
    if u.operation in _GROWING:
        return True
    if u.operation == "pow":
        return not (isinstance(u.arguments[1], Number) and 0 <= u.arguments[1].value <= 1) or may_overflow(
            u.arguments[0]
        )
    if u.operation == "mul" and all(depends(argument, "x") for argument in u.arguments):
        return True
    return any(may_overflow(argument) for argument in u.arguments)


@cache
def may_vanish(u: Expression) -> bool:
    """Whether it can underflow to 0 where it is not 0."""
    if not isinstance(u, Call) or not depends(u, "x"):
        return False
    if u.operation in _VANISHING:
        return True
    if u.operation == "pow":
        return (isinstance(u.arguments[1], Number) and u.arguments[1].value < 0) or may_vanish(u.arguments[0])
    if u.operation == "add":
        return all(may_vanish(argument) for argument in u.arguments)
    if u.operation in ("mul", "where", "abs", "sqrt", "max", "min", "expm1", "log1p", "softplus"):
        return any(may_vanish(argument) for argument in u.arguments)
    return False
