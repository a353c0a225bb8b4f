"""A loop over vectors as LLVM code: the value of an expression at each element, or gradients by its derivatives."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..expression import Call, Expression, Name, Number, is_call, nodes, number
from ..ranges import needs_guard
from .arithmetic import OF_FUNCTION, ONE_ARGUMENT, hypot, maximum, minimum, whole_power
from .circular import REACH
from .exponential import power
from .hyperbolic import sech_squared
from .lanes import REAL, TRUTH, Lanes, Value

# Arguments of every loop; those that one does not use are null. It returns 1 where the results cannot be trusted.
HEAD = "define i32 @{name}(ptr noalias %x, ptr noalias %g, ptr noalias %out, i64 %n, ptr noalias %p, ptr noalias %s) {{"
_ELEMENT = {"float32": "float", "float64": "double", "bfloat16": "i16"}


class NotCompiled(Exception):
    """An operation that has no vector code."""


def values_loop(name: str, expression: Expression, parameters: tuple[str, ...], dtype: str) -> str:
    """out = expression of x."""
    loop = _Loop(dtype, parameters)
    found = loop.of(expression)
    loop.store(found)
    return loop.text(name)


def gradients_loop(
    name: str,
    by_x: Expression | None,
    by_parameters: Sequence[Expression | None],
    parameters: tuple[str, ...],
    dtype: str,
) -> str:
    """out = g * by_x, and s = the sums of g * each of the other derivatives; None is not computed."""
    loop = _Loop(dtype, parameters)
    gradient = loop.load("g")
    if by_x is not None:
        loop.store(gradient * loop.of(by_x))
    for place, expression in enumerate(by_parameters):
        if expression is not None:
            loop.sum(place, gradient * loop.of(expression))
    return loop.text(name)


class _Loop:
    def __init__(self, dtype: str, parameters: tuple[str, ...]) -> None:
        self.dtype, self.parameters = dtype, parameters
        precision = "double" if dtype == "float64" else "single"
        # Two registers of the widest kind, so that a polynomial does not wait for itself; LLVM splits what is wider.
        self.width = 32 if precision == "single" else 16
        self.lanes = Lanes(precision, self.width)
        self.found: dict[Expression, Value] = {}
        self.given: dict[int, Value] = {}
        self.sums: list[tuple[int, str]] = []
        self.beyond: Value | None = None
        self.ends: list[str] = []
        self.x = self.load("x")

    # Expressions

    def of(self, expression: Expression) -> Value:
        for node in nodes(expression):
            if node not in self.found:
                self.found[node] = self._value(node)
        return self.found[expression]

    def _value(self, node: Expression) -> Value:
        if isinstance(node, Number):
            return self.lanes.constant(node.value)
        if isinstance(node, Name):
            return self.x if node.name == "x" else self._parameter(self.parameters.index(node.name))
        assert isinstance(node, Call)
        arguments = [self.found[argument] for argument in node.arguments]
        return self._call(node, *arguments)

    def _parameter(self, place: int) -> Value:
        """The same in every lane; parameters come as float64."""
        lanes, vector = self.lanes, self.lanes.type(REAL)
        if place not in self.given:
            narrow = f"fptrunc double %d{place} to float" if lanes.real == "float" else f"fadd double %d{place}, -0.0"
            lanes.before += [
                f"%a{place} = getelementptr double, ptr %p, i64 {place}",
                f"%d{place} = load double, ptr %a{place}",
                f"%e{place} = {narrow}",
                f"%i{place} = insertelement {vector} poison, {lanes.real} %e{place}, i32 0",
                f"%p{place} = shufflevector {vector} %i{place}, {vector} poison, <{self.width} x i32> zeroinitializer",
            ]
            self.given[place] = Value(lanes, f"%p{place}", REAL, True)
        return self.given[place]

    def _call(self, node: Call, *u: Value) -> Value:
        operation = node.operation
        if operation == "mul" and needs_guard(*node.arguments):
            return (u[0].equals(0.0) | u[1].equals(0.0)).choose(0.0, u[0] * u[1])
        if operation == "mul" and node.arguments[0] is number(-1.0):
            return -u[1]
        if operation == "pow":
            if is_call(node.arguments[0], "sech") and node.arguments[1] is number(2.0):
                inner = node.arguments[0].arguments[0]  # type: ignore[attr-defined]
                if not is_call(inner, "softplus"):
                    return sech_squared(self.found[inner])
            return self._power(u[0], u[1], node.arguments[1])
        if operation == "where":
            return u[0].choose(u[1], u[2])
        if operation in ("sin", "cos", "sinc"):
            self._within(u[0])
        inner = node.arguments[0]
        if isinstance(inner, Call) and (operation, inner.operation) in OF_FUNCTION:
            return OF_FUNCTION[operation, inner.operation](self.found[inner.arguments[0]])
        if operation in _TWO_ARGUMENTS:
            return _TWO_ARGUMENTS[operation](*u)
        if operation in ONE_ARGUMENT:
            return ONE_ARGUMENT[operation](*u)
        raise NotCompiled(operation)

    def _power(self, u: Value, v: Value, exponent: Expression) -> Value:
        if isinstance(exponent, Number):
            size, negative = abs(exponent.value), exponent.value < 0
            if size == int(size) and 0 < size <= 64:
                found = whole_power(u, int(size))
                return self.lanes.constant(1.0) / found if negative else found
            if size == 0.5:
                return self.lanes.constant(1.0) / u.sqrt() if negative else u.sqrt()
        return power(u, v)

    def _within(self, u: Value) -> None:
        """Arguments of circular functions that are too large are told, and computed elsewhere."""
        beyond = self.lanes.constant(REACH[self.lanes.precision]).below(u.abs())
        self.beyond = beyond if self.beyond is None else self.beyond | beyond

    # Memory

    def load(self, name: str) -> Value:
        body, width, lanes = self.lanes.body, self.width, self.lanes
        element = _ELEMENT[self.dtype]
        body.append(f"%at_{name} = getelementptr {element}, ptr %{name}, i64 %i")
        body.append(f"%raw_{name} = load <{width} x {element}>, ptr %at_{name}, align {_ALIGN[element]}")
        last = f"%raw_{name}"
        if self.dtype == "bfloat16":
            body.append(f"%wide_{name} = zext <{width} x i16> {last} to <{width} x i32>")
            sixteen = "<" + ", ".join(["i32 16"] * width) + ">"
            body.append(f"%high_{name} = shl <{width} x i32> %wide_{name}, {sixteen}")
            body.append(f"%real_{name} = bitcast <{width} x i32> %high_{name} to <{width} x float>")
            last = f"%real_{name}"
        return Value(lanes, last, REAL, False)

    def store(self, value: Value) -> None:
        width, ends = self.width, self.ends
        last, element = value.text, _ELEMENT[self.dtype]
        if self.dtype == "bfloat16":
            ends += _rounded(width, last)
            last = "%short"
        ends.append(f"%at_out = getelementptr {element}, ptr %out, i64 %i")
        ends.append(f"store <{width} x {element}> {last}, ptr %at_out, align {_ALIGN[element]}")

    def sum(self, place: int, value: Value) -> None:
        self.sums.append((place, value.text))

    # Code

    def text(self, name: str) -> str:
        lanes, vector, width = self.lanes, self.lanes.type(REAL), self.width
        lines = [HEAD.format(name=name), "entry:", *lanes.before, "br label %loop", "loop:"]
        lines.append("%i = phi i64 [ 0, %entry ], [ %next, %loop ]")
        for place, _ in self.sums:
            lines.append(f"%sum{place} = phi <{width} x double> [ zeroinitializer, %entry ], [ %more{place}, %loop ]")
        if self.beyond is not None:
            lines.append(f"%far = phi {lanes.type(TRUTH)} [ zeroinitializer, %entry ], [ %farther, %loop ]")
        lines += [*lanes.body, *self.ends]
        for place, text in self.sums:
            if lanes.real == "float":
                lines.append(f"%term{place} = fpext {vector} {text} to <{width} x double>")
                text = f"%term{place}"
            lines.append(f"%more{place} = fadd <{width} x double> %sum{place}, {text}")
        if self.beyond is not None:
            lines.append(f"%farther = or {lanes.type(TRUTH)} %far, {self.beyond.text}")
        lines += [f"%next = add i64 %i, {width}", "%again = icmp ult i64 %next, %n"]
        lines += ["br i1 %again, label %loop, label %end", "end:"]
        reduce = f"@llvm.vector.reduce.fadd.v{width}f64"
        for place, _ in self.sums:
            lanes.used.add(f"declare double {reduce}(double, <{width} x double>)")
            total = f"call reassoc double {reduce}(double -0.0, <{width} x double> %more{place})"
            lines += [f"%total{place} = {total}", f"%to{place} = getelementptr double, ptr %s, i64 {place}"]
            lines.append(f"store double %total{place}, ptr %to{place}")
        if self.beyond is None:
            lines.append("ret i32 0")
        else:
            lines += [f"%mask = bitcast {lanes.type(TRUTH)} %farther to i{width}", f"%any = icmp ne i{width} %mask, 0"]
            lines += ["%told = zext i1 %any to i32", "ret i32 %told"]
        return "\n".join([*sorted(lanes.used), *lines, "}"]) + "\n"


_ALIGN = {"float": 4, "double": 8, "i16": 2}

_TWO_ARGUMENTS: dict[str, Callable[..., Value]] = {
    "add": lambda u, v: u + v, "mul": lambda u, v: u * v, "div": lambda u, v: u / v, "hypot": hypot,
    "max": maximum, "min": minimum, "lt": lambda u, v: u.below(v), "le": lambda u, v: u.at_most(v),
    "eq": lambda u, v: u.equals(v), "and": lambda u, v: u & v, "not": lambda u: ~u,
}  # fmt: skip


def _rounded(width: int, text: str) -> list[str]:
    """float32 to bfloat16, to nearest and even; NaN stays one."""
    whole, half = f"<{width} x i32>", f"<{width} x i16>"

    def all_of(value: int, kind: str = "i32") -> str:
        return "<" + ", ".join([f"{kind} {value}"] * width) + ">"

    return [
        f"%pattern = bitcast <{width} x float> {text} to {whole}",
        f"%top = lshr {whole} %pattern, {all_of(16)}",
        f"%odd = and {whole} %top, {all_of(1)}",
        f"%up = add {whole} %odd, {all_of(0x7FFF)}",
        f"%moved = add {whole} %pattern, %up",
        f"%kept = lshr {whole} %moved, {all_of(16)}",
        f"%near = trunc {whole} %kept to {half}",
        f"%none = fcmp uno <{width} x float> {text}, {text}",
        f"%short = select <{width} x i1> %none, {half} {all_of(0x7FC0, 'i16')}, {half} %near",
    ]
