"""From a formula to its tree. Formulas are data, maybe a stranger's: they are parsed here and never run as Python.

pieces     := piece (";" piece)* [" where " name "=" sum ("," name "=" sum)*]
piece      := condition ":" sum | sum              the first piece whose condition holds; the last one is the rest
condition  := sum (("<" | "<=" | ">" | ">=" | "==" | "!=") sum)+
sum        := ["-"] product (("+" | "-") product)*
product    := factor (("*" | "/") factor)*
factor     := "-" factor | atom ["^" factor]
atom       := number | name | name "(" sum ("," sum)* ")" | "(" sum ")"
"""

from __future__ import annotations

import math
import re
from functools import cache

from ..errors import BadInput, UnknownName, did_you_mean
from .expression import OPERATIONS, Call, Expression, Name, call, name, negative, nodes, number, substitute, subtract

LONGEST = 2000
DEEPEST = 60

# What a formula may call, with other usual names.
FUNCTIONS = dict(list(OPERATIONS.items())[10:])
SYNONYMS = {"log": "ln", "atan": "arctan", "asin": "arcsin", "arcsinh": "asinh", "sign": "sgn"}
CONSTANTS = {"pi": math.pi}

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?)|(?P<name>[A-Za-z_]\w*)|(?P<sign>[<>=!]=|\*\*|[-+*/^(),;:<>=]))"
)
_FLIPPED = {"<": "lt", "<=": "le", ">": "lt", ">=": "le"}


@cache
def parse(formula: str) -> Expression:
    """The tree of a formula, with its local names put in. Raises `BadInput` naming the place, `UnknownName`.

    >>> parse("x>=0: x; x<0: a*x").operation
    'where'
    """
    if len(formula) > LONGEST:
        raise BadInput(f"the formula has {len(formula)} characters: at most {LONGEST} are read")
    return _Parser(formula).formula()


class _Parser:
    def __init__(self, text: str):
        self.text, self.place, self.depth = text, 0, 0
        self.tokens: list[tuple[str, str, int]] = []
        end = 0
        while end < len(text.rstrip()):
            found = _TOKEN.match(text, end)
            if found is None:
                raise BadInput(f"the formula '{text}' has a character at place {end + 1} that no formula has")
            kind = found.lastgroup or ""
            self.tokens.append((kind, found[kind], found.start(kind)))
            end = found.end()
        self.tokens.append(("end", "", len(text)))

    def formula(self) -> Expression:
        pieces = [self.piece()]
        while self.take(";"):
            pieces.append(self.piece())
        locals_: dict[str, Expression] = {}
        if self.peek()[1] == "where":
            self.place += 1
            self.local(locals_)
            while self.take(","):
                self.local(locals_)
        if self.peek()[0] != "end":
            raise self.wrong(f"'{self.peek()[1]}' follows where the formula should end")
        return _resolved(_joined(pieces, self), locals_)

    def local(self, known: dict[str, Expression]) -> None:
        kind, text, _ = self.next()
        if kind != "name" or not self.take("="):
            raise self.wrong("after 'where' comes name=expression")
        known[text] = self.sum()

    def piece(self) -> tuple[Expression | None, Expression]:
        first = self.sum()
        condition: Expression | None = None
        left = first
        while self.peek()[1] in ("<", "<=", ">", ">=", "==", "!="):
            sign = self.next()[1]
            right = self.sum()
            one = _comparison(sign, left, right)
            condition = one if condition is None else call("and", condition, one)
            left = right
        if condition is None:
            return None, first
        if not self.take(":"):
            raise self.wrong("a condition is followed by ':' and an expression")
        return condition, self.sum()

    def sum(self) -> Expression:
        self.depth += 1
        if self.depth > DEEPEST:
            raise BadInput(f"the formula is nested deeper than {DEEPEST} levels")
        found = self.product()
        while self.peek()[1] in ("+", "-"):
            sign, other = self.next()[1], self.product()
            found = call("add", found, other) if sign == "+" else subtract(found, other)
        self.depth -= 1
        return found

    def product(self) -> Expression:
        found = self.factor()
        while self.peek()[1] in ("*", "/"):
            sign, other = self.next()[1], self.factor()
            found = call("mul" if sign == "*" else "div", found, other)
        return found

    def factor(self) -> Expression:
        self.depth += 1
        if self.depth > DEEPEST:
            raise BadInput(f"the formula is nested deeper than {DEEPEST} levels")
        if self.take("-"):
            found = negative(self.factor())
        else:
            found = self.atom()
            if self.take("^") or self.take("**"):
                found = call("pow", found, self.factor())
        self.depth -= 1
        return found

    def atom(self) -> Expression:
        kind, text, _ = self.next()
        if kind == "number":
            return number(float(text))
        if kind == "name":
            if text == "where":
                raise self.wrong("'where' stands where an expression should")
            return self.called(text) if self.take("(") else number(CONSTANTS[text]) if text in CONSTANTS else name(text)
        if text == "(":
            found = self.sum()
            self.close()
            return found
        raise self.wrong(f"'{text}' stands where a number, a name or '(' should" if text else "it ends too early")

    def called(self, text: str) -> Expression:
        function = SYNONYMS.get(text, text)
        if function not in FUNCTIONS:
            raise UnknownName(f"the formula calls '{text}': {did_you_mean(text, FUNCTIONS)}")
        arguments = [self.sum()]
        while self.take(","):
            arguments.append(self.sum())
        self.close()
        if function in ("max", "min") and len(arguments) > 2:
            while len(arguments) > 2:
                arguments[:2] = [call(function, *arguments[:2])]
        if len(arguments) != FUNCTIONS[function]:
            raise self.wrong(f"{text} takes {FUNCTIONS[function]} arguments, not {len(arguments)}")
        return call(function, *arguments)

    def close(self) -> None:
        if not self.take(")"):
            raise self.wrong("a ')' is missing")

    def peek(self) -> tuple[str, str, int]:
        return self.tokens[self.place]

    def next(self) -> tuple[str, str, int]:
        self.place += 1
        return self.tokens[self.place - 1]

    def take(self, text: str) -> bool:
        if self.peek()[1] != text:
            return False
        self.place += 1
        return True

    def wrong(self, why: str) -> BadInput:
        place = self.tokens[min(self.place, len(self.tokens)) - 1][2] + 1
        return BadInput(f"the formula '{self.text}' cannot be read near place {place}: {why}")


def _comparison(sign: str, left: Expression, right: Expression) -> Expression:
    if sign in ("==", "!="):
        equal = call("eq", left, right)
        return equal if sign == "==" else call("not", equal)
    return call(_FLIPPED[sign], *((left, right) if sign in ("<", "<=") else (right, left)))


def _joined(pieces: list[tuple[Expression | None, Expression]], parser: _Parser) -> Expression:
    """One expression: the last piece holds wherever none before it does."""
    if any(condition is None for condition, _ in pieces[:-1]):
        raise parser.wrong("only the last piece can do without a condition")
    found = pieces[-1][1]
    for condition, piece in reversed(pieces[:-1]):
        assert condition is not None
        found = call("where", condition, piece, found)
    return found


def _resolved(found: Expression, locals_: dict[str, Expression]) -> Expression:
    """Local names may use those after them, as `u/v where u=k*x, k=2` does, but not themselves."""
    for _ in range(len(locals_)):
        found = substitute(found, locals_)
    left = {node.name for node in nodes(found) if isinstance(node, Name)} & locals_.keys()
    if left:
        raise BadInput(f"the local name '{sorted(left)[0]}' of the formula is defined by itself")
    if sum(isinstance(node, Call) for node in nodes(found)) > LONGEST:
        raise BadInput("the formula grows too large when its local names are put in")
    return found
