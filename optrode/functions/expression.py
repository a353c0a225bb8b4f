"""The tree that a formula becomes: numbers, names and calls, built by functions that simplify as they go.

Nothing here knows of tensors. Two trees that are equal are the same object, so that a common part is computed once.
`0 * u` is 0 whatever u is: where a factor vanishes by its form, the product does, even where u would overflow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True, eq=False)
class Expression:
    """A node. Compared by identity: `number`, `name` and `call` give one object for one tree."""


@dataclass(frozen=True, eq=False)
class Number(Expression):
    value: float


@dataclass(frozen=True, eq=False)
class Name(Expression):
    name: str


@dataclass(frozen=True, eq=False)
class Call(Expression):
    """`operation` applied to `arguments`: see `OPERATIONS`."""

    operation: str
    arguments: tuple[Expression, ...]


# Operations and how many arguments they take. Those of the first line are written with signs, not as calls.
OPERATIONS = {
    "add": 2, "mul": 2, "div": 2, "pow": 2, "lt": 2, "le": 2, "eq": 2, "and": 2, "not": 1, "where": 3,
    "exp": 1, "expm1": 1, "ln": 1, "log1p": 1, "sqrt": 1, "hypot": 2, "abs": 1, "sgn": 1, "floor": 1,
    "sin": 1, "cos": 1, "tan": 1, "arctan": 1, "arcsin": 1, "asinh": 1, "sinh": 1, "cosh": 1, "sech": 1, "tanh": 1,
    "sigmoid": 1, "softplus": 1, "lncosh": 1, "relu": 1, "relu6": 1, "elu": 1,
    "erf": 1, "Phi": 1, "phi": 1, "hazard": 1, "sinc": 1, "Gamma": 1, "digamma": 1, "max": 2, "min": 2,
}  # fmt: skip

CONDITIONS = ("lt", "le", "eq", "and", "not")


@cache
def number(value: float) -> Number:
    return Number(value)


@cache
def name(text: str) -> Name:
    return Name(text)


@cache
def _call(operation: str, *arguments: Expression) -> Call:
    return Call(operation, arguments)


def names_in(expression: Expression) -> set[str]:
    """The free names."""
    return {node.name for node in nodes(expression) if isinstance(node, Name)}


def nodes(expression: Expression) -> Iterator[Expression]:
    """Every distinct node, arguments before the calls that take them."""
    seen: set[Expression] = set()
    stack: list[tuple[Expression, bool]] = [(expression, False)]
    while stack:
        node, ready = stack.pop()
        if node in seen:
            continue
        if ready or not isinstance(node, Call):
            seen.add(node)
            yield node
        else:
            stack.append((node, True))
            stack.extend((argument, False) for argument in reversed(node.arguments))


def depends(expression: Expression, on: str) -> bool:
    return any(node is name(on) for node in nodes(expression))


def substitute(expression: Expression, values: dict[str, Expression]) -> Expression:
    """The same tree with names replaced, and simplified anew."""
    new: dict[Expression, Expression] = {}
    for node in nodes(expression):
        if isinstance(node, Name):
            new[node] = values.get(node.name, node)
        elif isinstance(node, Call):
            new[node] = call(node.operation, *(new[argument] for argument in node.arguments))
        else:
            new[node] = node
    return new[expression]


# Simplifying constructors --------------------------------------------------------------------------------------------


def call(operation: str, *arguments: Expression) -> Expression:
    """A call, simplified where it is a number or has a form that keeps its accuracy."""
    simplify = _SIMPLIFY.get(operation)
    found = simplify(*arguments) if simplify else None
    return found if found is not None else _call(operation, *arguments)


def negative(u: Expression) -> Expression:
    return call("mul", number(-1.0), u)


def subtract(u: Expression, v: Expression) -> Expression:
    return call("add", u, negative(v))


def is_call(u: Expression, operation: str) -> bool:
    return isinstance(u, Call) and u.operation == operation


def _is(u: Expression, value: float) -> bool:
    return isinstance(u, Number) and u.value == value


def _add(u: Expression, v: Expression) -> Expression | None:
    if isinstance(u, Number) and isinstance(v, Number):
        return number(u.value + v.value)
    if _is(u, 0):
        return v
    if _is(v, 0):
        return u
    for one, other in ((u, v), (v, u)):
        # exp(w) - 1, and 1 - exp(w), without the cancellation near 0.
        if _is(one, -1) and is_call(other, "exp"):
            return call("expm1", *other.arguments)  # type: ignore[attr-defined]
        if _is(one, 1):
            inner = _negated(other)
            if inner is not None and is_call(inner, "exp"):
                return negative(call("expm1", *inner.arguments))  # type: ignore[attr-defined]
            if inner is not None and is_call(inner, "sigmoid"):
                return call("sigmoid", negative(inner.arguments[0]))  # type: ignore[attr-defined]
    return None


def _negated(u: Expression) -> Expression | None:
    """w where u is -w."""
    return u.arguments[1] if isinstance(u, Call) and u.operation == "mul" and _is(u.arguments[0], -1) else None


def _mul(u: Expression, v: Expression) -> Expression | None:
    if isinstance(u, Number) and isinstance(v, Number):
        return number(u.value * v.value)
    if _is(u, 0) or _is(v, 0):
        return number(0.0)
    if _is(u, 1):
        return v
    if _is(v, 1):
        return u
    if isinstance(v, Number):
        return call("mul", v, u)
    if isinstance(u, Number) and is_call(v, "mul") and isinstance(v.arguments[0], Number):  # type: ignore[attr-defined]
        return call("mul", number(u.value * v.arguments[0].value), v.arguments[1])  # type: ignore[attr-defined]
    return None


def _div(u: Expression, v: Expression) -> Expression | None:
    if isinstance(v, Number) and v.value != 0:
        return number(u.value / v.value) if isinstance(u, Number) else _by_number(u, v.value)
    if _is(u, 0):
        return number(0.0)
    if _is(u, 1) and is_call(v, "add"):
        # 1/(1 + exp(w)) is sigmoid(-w).
        one, other = v.arguments  # type: ignore[attr-defined]
        if _is(other, 1):
            one, other = other, one
        if _is(one, 1) and is_call(other, "exp"):
            return call("sigmoid", negative(other.arguments[0]))
    return None


def _by_number(u: Expression, value: float) -> Expression | None:
    """u / value as a product where that rounds nothing, and as a division where it would."""
    if value == 1:
        return u
    return call("mul", number(1 / value), u) if math.frexp(value)[0] in (0.5, -0.5) else None


def _pow(u: Expression, v: Expression) -> Expression | None:
    if isinstance(u, Number) and isinstance(v, Number) and (u.value > 0 or v.value == int(v.value) > 0):
        return number(u.value**v.value)
    if _is(v, 1):
        return u
    if _is(v, 0):
        return number(1.0)
    if _is(u, 2):
        return call("exp", call("mul", number(math.log(2)), v))
    return None


def _ln(u: Expression) -> Expression | None:
    if isinstance(u, Number) and u.value > 0:
        return number(math.log(u.value))
    if is_call(u, "exp"):
        return u.arguments[0]  # type: ignore[attr-defined]
    if is_call(u, "cosh"):
        return call("lncosh", *u.arguments)  # type: ignore[attr-defined]
    if is_call(u, "sigmoid"):
        return negative(call("softplus", negative(u.arguments[0])))  # type: ignore[attr-defined]
    if is_call(u, "add"):
        one, other = u.arguments  # type: ignore[attr-defined]
        if _is(other, 1):
            one, other = other, one
        if _is(one, 1):
            return call("softplus", *other.arguments) if is_call(other, "exp") else call("log1p", other)
    return None


def _sqrt(u: Expression) -> Expression | None:
    """sqrt(w^2 + positive number) as a hypotenuse, which does not overflow where w^2 does."""
    if isinstance(u, Number) and u.value >= 0:
        return number(math.sqrt(u.value))
    if not is_call(u, "add"):
        return None
    for one, other in (u.arguments, u.arguments[::-1]):  # type: ignore[attr-defined]
        if is_call(one, "pow") and _is(one.arguments[1], 2):
            root = _root(other)
            if root is not None:
                return call("hypot", one.arguments[0], root)
    return None


def _root(u: Expression) -> Expression | None:
    """The square root of what is no less than 0 by its form; a lone parameter counts, since it has to be."""
    if isinstance(u, Number):
        return number(math.sqrt(u.value)) if u.value >= 0 else None
    if is_call(u, "pow") and _is(u.arguments[1], 2):  # type: ignore[attr-defined]
        return u.arguments[0]  # type: ignore[attr-defined]
    return call("sqrt", u) if isinstance(u, Name) else None


def _of_number(function: Callable[[float], float]) -> Callable[[Expression], Expression | None]:
    def simplify(u: Expression) -> Expression | None:
        if not isinstance(u, Number):
            return None
        try:
            return number(function(u.value))
        except (OverflowError, ValueError):
            return None

    return simplify


def _of_two(function: Callable[[float, float], float]) -> Callable[[Expression, Expression], Expression | None]:
    def simplify(u: Expression, v: Expression) -> Expression | None:
        if isinstance(u, Number) and isinstance(v, Number):
            return number(function(u.value, v.value))
        return u if u is v else None

    return simplify


def _where(condition: Expression, u: Expression, v: Expression) -> Expression | None:
    return u if u is v else None


_SIMPLIFY: dict[str, Callable[..., Expression | None]] = {
    "add": _add, "mul": _mul, "div": _div, "pow": _pow, "ln": _ln, "sqrt": _sqrt, "where": _where,
    "max": _of_two(max), "min": _of_two(min), "exp": _of_number(math.exp), "expm1": _of_number(math.expm1),
    "abs": _of_number(abs), "tanh": _of_number(math.tanh), "sin": _of_number(math.sin), "cos": _of_number(math.cos),
    "log1p": _of_number(math.log1p),
}  # fmt: skip
