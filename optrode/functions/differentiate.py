"""The derivative of a tree, by rules whose results are as stable as the operations they come from.

At a kink the derivative is that of the piece that the formula puts there; of `max` and `min` it is that of the side
without the variable, as in `torch.relu`; of `abs` it is 0. A jump has derivative 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

from .expression import Call, Expression, Name, call, depends, name, negative, nodes, number, subtract

ONE, ZERO, TWO = number(1.0), number(0.0), number(2.0)


@cache
def differentiate(expression: Expression, by: str = "x") -> Expression:
    """d expression / d `by`."""
    found: dict[Expression, Expression] = {}
    for node in nodes(expression):
        found[node] = _derivative(node, by, found)
    return found[expression]


def _derivative(node: Expression, by: str, known: dict[Expression, Expression]) -> Expression:
    if isinstance(node, Name):
        return ONE if node is name(by) else ZERO
    if not isinstance(node, Call) or not depends(node, by):
        return ZERO
    u = node.arguments
    if node.operation == "where":
        return call("where", u[0], known[u[1]], known[u[2]])
    if node.operation in ("max", "min"):
        return _extreme(node, by, known)
    if node.operation in _TWO:
        return _TWO[node.operation](u[0], u[1], known[u[0]], known[u[1]])
    if node.operation in _ONE:
        return call("mul", known[u[0]], _ONE[node.operation](u[0]))
    # Conditions, sgn, floor.
    return ZERO


def _extreme(node: Call, by: str, known: dict[Expression, Expression]) -> Expression:
    u, v = node.arguments
    if not depends(v, by):
        u, v = v, u
    # u is the side without the variable, if there is one: it wins a tie.
    condition = call("le", v, u) if node.operation == "max" else call("le", u, v)
    return call("where", condition, known[u], known[v])


def _mul(u: Expression, v: Expression, du: Expression, dv: Expression) -> Expression:
    return call("add", call("mul", du, v), call("mul", u, dv))


def _div(u: Expression, v: Expression, du: Expression, dv: Expression) -> Expression:
    # Never v^2, which overflows first.
    return subtract(call("div", du, v), call("mul", call("div", u, v), call("div", dv, v)))


def _pow(u: Expression, v: Expression, du: Expression, dv: Expression) -> Expression:
    of_base = call("mul", du, call("mul", v, call("pow", u, call("add", v, number(-1.0)))))
    # u^v ln(u) has the limit 0 at u = 0 for v > 0, and no meaning below.
    grown = call("where", call("lt", ZERO, u), call("mul", call("pow", u, v), call("ln", u)), ZERO)
    return call("add", of_base, call("mul", dv, grown)) if dv is not ZERO else of_base


def _hypot(u: Expression, v: Expression, du: Expression, dv: Expression) -> Expression:
    whole = call("hypot", u, v)
    return call("add", call("mul", du, call("div", u, whole)), call("mul", dv, call("div", v, whole)))


def _sinc(u: Expression) -> Expression:
    """(cos u - sin(u)/u)/u, by its series near 0 where the difference cancels."""
    square = call("pow", u, TWO)
    series: Expression = ZERO
    for k in range(8, 0, -1):
        # Coefficient of u^(2k-1): (-1)^k 2k/(2k+1)!.
        factor = number((-1) ** k * 2 * k / math.factorial(2 * k + 1))
        series = call("add", factor, call("mul", square, series))
    far = call("div", subtract(call("cos", u), call("sinc", u)), u)
    return call("where", call("lt", call("abs", u), ONE), call("mul", u, series), far)


def _step(u: Expression) -> Expression:
    return call("where", call("lt", ZERO, u), ONE, ZERO)


_TWO: dict[str, Callable[..., Expression]] = {
    "add": lambda u, v, du, dv: call("add", du, dv),
    "mul": _mul,
    "div": _div,
    "pow": _pow,
    "hypot": _hypot,
}

_ONE: dict[str, Callable[[Expression], Expression]] = {
    "exp": lambda u: call("exp", u),
    "expm1": lambda u: call("exp", u),
    "ln": lambda u: call("div", ONE, u),
    "log1p": lambda u: call("div", ONE, call("add", ONE, u)),
    "sqrt": lambda u: call("div", number(0.5), call("sqrt", u)),
    "abs": lambda u: call("sgn", u),
    "sin": lambda u: call("cos", u),
    "cos": lambda u: negative(call("sin", u)),
    "tan": lambda u: call("add", ONE, call("pow", call("tan", u), TWO)),
    "arctan": lambda u: call("pow", call("hypot", u, ONE), number(-2.0)),
    "arcsin": lambda u: call("div", ONE, call("sqrt", call("mul", subtract(ONE, u), call("add", ONE, u)))),
    "asinh": lambda u: call("div", ONE, call("hypot", u, ONE)),
    "sinh": lambda u: call("cosh", u),
    "cosh": lambda u: call("sinh", u),
    "sech": lambda u: negative(call("mul", call("sech", u), call("tanh", u))),
    "tanh": lambda u: call("pow", call("sech", u), TWO),
    "sigmoid": lambda u: call("mul", call("sigmoid", u), call("sigmoid", negative(u))),
    "softplus": lambda u: call("sigmoid", u),
    "lncosh": lambda u: call("tanh", u),
    "relu": _step,
    "relu6": lambda u: call("where", call("lt", ZERO, u), call("where", call("lt", u, number(6.0)), ONE, ZERO), ZERO),
    "elu": lambda u: call("where", call("lt", ZERO, u), ONE, call("exp", u)),
    "erf": lambda u: call("mul", number(2 * math.sqrt(2)), call("phi", call("mul", number(math.sqrt(2)), u))),
    "Phi": lambda u: call("phi", u),
    "phi": lambda u: negative(call("mul", u, call("phi", u))),
    "hazard": lambda u: call("mul", call("hazard", u), subtract(call("hazard", u), u)),
    "sinc": _sinc,
    "Gamma": lambda u: call("mul", call("Gamma", u), call("digamma", u)),
}  # fmt: skip
