"""LLVM code on short vectors, written by ordinary arithmetic: `Lanes` holds the code, `Value` is one of its numbers.

An instruction that was written before is not written again, so that functions that share an exponential share it in the
code. What depends on constants and parameters alone goes before the loop.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

REAL, BITS, TRUTH = "real", "bits", "truth"


@dataclass(eq=False)
class Lanes:
    """`precision` says which arithmetic and which polynomials: `single` is float32, `double` is float64. `width`:
    elements in a vector."""

    precision: str
    width: int
    before: list[str] = field(default_factory=list)
    body: list[str] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    _known: dict[str, Value] = field(default_factory=dict)
    _negated: dict[str, Value] = field(default_factory=dict)

    @property
    def real(self) -> str:
        return "float" if self.precision == "single" else "double"

    @property
    def bits(self) -> int:
        return 32 if self.precision == "single" else 64

    @property
    def mantissa(self) -> int:
        return 23 if self.precision == "single" else 52

    @property
    def bias(self) -> int:
        return 127 if self.precision == "single" else 1023

    def type(self, kind: str) -> str:
        element = {REAL: self.real, BITS: f"i{self.bits}", TRUTH: "i1"}[kind]
        return f"<{self.width} x {element}>"

    def emit(self, text: str, kind: str, *operands: Value) -> Value:
        """An instruction, or the value of the same one earlier."""
        if text not in self._known:
            uniform = all(operand.uniform for operand in operands)
            value = Value(self, f"%v{len(self._known)}", kind, uniform)
            (self.before if uniform else self.body).append(f"{value.text} = {text}")
            self._known[text] = value
        return self._known[text]

    def constant(self, value: float) -> Value:
        if self.precision == "single":
            value = struct.unpack("f", struct.pack("f", _in_float32(value)))[0]
        (pattern,) = struct.unpack("<Q", struct.pack("<d", value))
        return Value(self, self._splat(f"{self.real} 0x{pattern:016X}"), REAL, True)

    def integer(self, value: int) -> Value:
        return Value(self, self._splat(f"i{self.bits} {value}"), BITS, True)

    def truth(self, value: bool) -> Value:
        return Value(self, self._splat(f"i1 {str(value).lower()}"), TRUTH, True)

    def _splat(self, element: str) -> str:
        return "<" + ", ".join([element] * self.width) + ">"

    def intrinsic(self, name: str, *operands: Value) -> Value:
        vector = self.type(REAL)
        full = f"@llvm.{name}.v{self.width}f{self.bits}"
        self.used.add(f"declare {vector} {full}({', '.join([vector] * len(operands))})")
        arguments = ", ".join(f"{vector} {operand.text}" for operand in operands)
        return self.emit(f"call {vector} {full}({arguments})", REAL, *operands)

    def polynomial(self, x: Value, coefficients: tuple[float, ...]) -> Value:
        """By Estrin's scheme, whose steps do not wait for each other."""
        level = [self.constant(value) for value in coefficients]
        power = x
        while len(level) > 1:
            pairs = [level[k + 1].times_plus(power, level[k]) for k in range(0, len(level) - 1, 2)]
            level = [*pairs, level[-1]] if len(level) % 2 else pairs
            power = power * power
        return level[0]


@dataclass(frozen=True, eq=False)
class Value:
    """A vector in the code. Comparisons are methods: `u.below(v)`."""

    lanes: Lanes
    text: str
    kind: str
    uniform: bool

    def _of(self, other: Value | float) -> Value:
        if isinstance(other, Value):
            return other
        return self.lanes.constant(other) if self.kind == REAL else self.lanes.integer(int(other))

    def _two(self, operation: str, other: Value | float, kind: str | None = None) -> Value:
        right = self._of(other)
        text = f"{operation} {self.lanes.type(self.kind)} {self.text}, {right.text}"
        return self.lanes.emit(text, kind or self.kind, self, right)

    def __add__(self, other: Value | float) -> Value:
        return self._two("fadd" if self.kind == REAL else "add", other)

    def __sub__(self, other: Value | float) -> Value:
        return self._two("fsub" if self.kind == REAL else "sub", other)

    def __mul__(self, other: Value | float) -> Value:
        return self._two("fmul", other)

    def __truediv__(self, other: Value | float) -> Value:
        return self._two("fdiv", other)

    def __neg__(self) -> Value:
        known = self.lanes._negated
        if self.text in known:
            return known[self.text]
        found = self.lanes.emit(f"fneg {self.lanes.type(REAL)} {self.text}", REAL, self)
        known[found.text] = self
        return found

    def __and__(self, other: Value | int) -> Value:
        return self._two("and", other)

    def __or__(self, other: Value | int) -> Value:
        return self._two("or", other)

    def __xor__(self, other: Value | int) -> Value:
        return self._two("xor", other)

    def __lshift__(self, places: int) -> Value:
        return self._two("shl", places)

    def __rshift__(self, places: int) -> Value:
        """Keeps the sign."""
        return self._two("ashr", places)

    def __invert__(self) -> Value:
        return self._two("xor", self.lanes.truth(True))

    def times_plus(self, factor: Value | float, term: Value | float) -> Value:
        """self * factor + term, rounded once."""
        return self.lanes.intrinsic("fmuladd", self, self._of(factor), self._of(term))

    def below(self, other: Value | float) -> Value:
        return self._two("fcmp olt", other, TRUTH)

    def at_most(self, other: Value | float) -> Value:
        return self._two("fcmp ole", other, TRUTH)

    def equals(self, other: Value | float) -> Value:
        return self._two("fcmp oeq", other, TRUTH) if self.kind == REAL else self._two("icmp eq", other, TRUTH)

    def undefined(self) -> Value:
        """Whether it is no number."""
        return self._two("fcmp uno", self, TRUTH)

    def choose(self, yes: Value | float, no: Value | float) -> Value:
        """Of a truth: `yes` where it holds."""
        one = yes if isinstance(yes, Value) else no
        assert isinstance(one, Value)
        yes, no = one._of(yes), one._of(no)
        vector = self.lanes.type(one.kind)
        text = f"select {self.lanes.type(TRUTH)} {self.text}, {vector} {yes.text}, {vector} {no.text}"
        return self.lanes.emit(text, one.kind, self, yes, no)

    def as_bits(self) -> Value:
        return self._cast("bitcast", BITS)

    def as_real(self) -> Value:
        return self._cast("bitcast", REAL)

    def _cast(self, operation: str, kind: str) -> Value:
        text = f"{operation} {self.lanes.type(self.kind)} {self.text} to {self.lanes.type(kind)}"
        return self.lanes.emit(text, kind, self)

    def abs(self) -> Value:
        """Of -u the one of u, so that both sides share what they compute of it."""
        if self.text in self.lanes._negated:
            return self.lanes._negated[self.text].abs()
        return self.lanes.intrinsic("fabs", self)

    def floor(self) -> Value:
        return self.lanes.intrinsic("floor", self)

    def sqrt(self) -> Value:
        return self.lanes.intrinsic("sqrt", self)

    def with_sign_of(self, other: Value) -> Value:
        return self.lanes.intrinsic("copysign", self, other)


def _in_float32(value: float) -> float:
    largest = 3.4028234663852886e38
    if value != value or abs(value) <= largest:
        return value
    return float("inf") if value > 0 else float("-inf")
