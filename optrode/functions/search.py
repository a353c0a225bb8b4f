"""Search for activation functions among core units: two unary functions of an input each, and one binary of both.

Source: arXiv 1710.05941. A candidate is a stack of units; each input of a unit is x or the unit below. Candidates are
formulas, so that what is found is a function of the zoo like any other. Where an operator has no value or overflows, it
is kept from there by a small number or a limit; the paper does so without saying how, so those are ours.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ..engine.progress import Steps
from ..errors import BadInput, OptrodeError, UnknownName, did_you_mean
from .of_formula import FormulaFunction, from_formula

# `u` is the input; `b` is a trainable number, which each place has for itself.
UNARY = {
    "x": "u", "-x": "-u", "abs": "abs(u)", "square": "u^2", "cube": "u^3", "sqrt": "sqrt(abs(u)+1e-6)", "scale": "b*u",
    "shift": "u+b", "ln": "ln(abs(u)+1e-6)", "exp": "exp(min(u,20))", "sin": "sin(u)", "cos": "cos(u)",
    "sinh": "sinh(max(-20,min(u,20)))", "cosh": "cosh(max(-20,min(u,20)))", "tanh": "tanh(u)", "asinh": "asinh(u)",
    "arctan": "arctan(u)", "sinc": "sinc(u)", "max0": "max(u,0)", "min0": "min(u,0)", "sigmoid": "sigmoid(u)",
    "softplus": "softplus(u)", "gauss": "exp(-u^2)", "erf": "erf(u)", "constant": "b",
}  # fmt: skip
# `u` and `v` are the inputs.
BINARY = {
    "add": "u+v", "mul": "u*v", "sub": "u-v", "div": "u*v/(v^2+1e-6)", "max": "max(u,v)", "min": "min(u,v)",
    "gate": "sigmoid(u)*v", "gauss": "exp(-b*(u-v)^2)", "laplace": "exp(-b*abs(u-v))", "mix": "b*u+(1-b)*v",
}  # fmt: skip
MIRRORED = ("add", "mul", "max", "min", "gauss", "laplace")
# Where two candidates that agree are one.
_PROBE = torch.linspace(-6, 6, 97, dtype=torch.float64)


@dataclass(frozen=True)
class Unit:
    """binary(first(.), second(.)); `from_below` says for each input whether it is the unit below in place of x."""

    binary: str
    first: str
    second: str
    from_below: tuple[bool, bool] = (False, False)


@dataclass(frozen=True)
class Candidate:
    """A stack of units, the lowest first; the output is that of the last."""

    units: tuple[Unit, ...]

    @property
    def name(self) -> str:
        """Such as `mul(x, sigmoid(x))`."""
        below = "x"
        for unit in self.units:
            inputs = [below if use else "x" for use in unit.from_below]
            below = f"{unit.binary}({_told(unit.first, inputs[0])}, {_told(unit.second, inputs[1])})"
        return below

    def function(self) -> FormulaFunction:
        """As a function, whose numbers b are trainable and start at 1."""
        count = itertools.count(1)
        below = "x"
        for unit in self.units:
            inputs = [below if use else "x" for use in unit.from_below]
            parts = [
                _put(UNARY[name], {"u": text}, count)
                for name, text in zip((unit.first, unit.second), inputs, strict=True)
            ]
            below = _put(BINARY[unit.binary], dict(zip("uv", parts, strict=True)), count)
        return from_formula(below, parameters={f"b{n}": 1.0 for n in range(1, next(count))}, name=self.name)


def _told(unary: str, text: str) -> str:
    return {"x": text, "-x": f"-{text}"}.get(unary, f"{unary}({text})")


def _put(pattern: str, values: dict[str, str], count: itertools.count[int]) -> str:
    """The pattern with its letters replaced; each `b` of one pattern is the same number."""
    own = f"b{next(count)}" if "b" in _letters(pattern) else ""
    return "".join(f"({values[one]})" if one in values else own if one == "b" else one for one in _letters(pattern))


def _letters(pattern: str) -> list[str]:
    """Words, numbers and signs, so that `b` is no part of `abs`."""
    found: list[str] = []
    for sign in pattern:
        if found and sign.isalnum() and found[-1].isalnum():
            found[-1] += sign
        else:
            found.append(sign)
    return found


@dataclass(frozen=True)
class Space:
    """Which operators a search may use, and how many units it may stack.

    >>> Space(("x", "sigmoid"), ("mul",)).size
    4
    """

    unary: tuple[str, ...] = tuple(UNARY)
    binary: tuple[str, ...] = tuple(BINARY)
    units: int = 1

    def __post_init__(self) -> None:
        for names, known in ((self.unary, UNARY), (self.binary, BINARY)):
            for name in names:
                if name not in known:
                    raise UnknownName(f"no core unit has an operator '{name}': {did_you_mean(name, known)}")
        if not self.unary or not self.binary or self.units < 1:
            raise BadInput("a space of functions needs unary operators, binary ones, and at least one unit")

    @property
    def choices(self) -> list[int]:
        """How many ways there are for each part of a candidate, unit by unit: binary, first, second, and for units on
        top of another the four choices of inputs."""
        one = [len(self.binary), len(self.unary), len(self.unary)]
        return [size for number in range(self.units) for size in (one if number == 0 else [*one, 4])]

    @property
    def size(self) -> int:
        return math.prod(self.choices)

    def at(self, places: Sequence[int]) -> Candidate:
        """The candidate whose parts have these places in the lists."""
        left, units = list(places), []
        for number in range(self.units):
            binary, first, second = (left.pop(0) for _ in range(3))
            below = left.pop(0) if number else 0
            units.append(Unit(self.binary[binary], self.unary[first], self.unary[second], (below >= 2, below % 2 == 1)))
        return Candidate(tuple(units))

    def all(self) -> list[Candidate]:
        """Every candidate; of two that only have their inputs mirrored, one. Raises `BadInput` above 100,000."""
        if self.size > 100_000:
            raise BadInput(f"the space has {self.size:,} candidates: search it at random, or take fewer operators")
        return [one for places in itertools.product(*map(range, self.choices)) if not _mirror(one := self.at(places))]

    def draw(self, draws: random.Random) -> Candidate:
        """One at random, every part uniformly."""
        return self.at([draws.randrange(size) for size in self.choices])


def _mirror(candidate: Candidate) -> bool:
    return any(
        unit.binary in MIRRORED and (unit.first, unit.from_below[0]) > (unit.second, unit.from_below[1])
        for unit in candidate.units
    )


@dataclass(frozen=True, eq=False)
class Scored:
    """A candidate, its function, and its reward; 0 for one that made no numbers."""

    candidate: Candidate
    function: FormulaFunction
    reward: float


Reward = Callable[[FormulaFunction], float]


def distinct(candidates: Sequence[Candidate]) -> list[tuple[Candidate, FormulaFunction]]:
    """Those that are functions of their own: the first of each that agree to 1e-6 between -6 and 6, and no constant.

    Trainable numbers are at their start, so that `scale(x)` counts as `x`.
    """
    seen: set[tuple[float, ...]] = set()
    found = []
    for candidate in candidates:
        function = candidate.function()
        key = values_of(function)
        if max(key) - min(key) < 1e-6:
            continue
        if key not in seen:
            seen.add(key)
            found.append((candidate, function))
    return found


def values_of(function: FormulaFunction) -> tuple[float, ...]:
    """Its values between -6 and 6, to six places: what tells functions apart."""
    with torch.no_grad():
        return tuple(round(value, 6) + 0.0 for value in function(_PROBE).tolist())


def score(
    candidates: Sequence[tuple[Candidate, FormulaFunction]], reward: Reward, steps: Steps | None = None
) -> list[Scored]:
    """Every candidate with its reward, best first. A reward that is no number, or an error on the way, counts as 0."""
    walk = steps.each(candidates, lambda one: one[0].name) if steps is not None else candidates
    found = [Scored(candidate, function, _safe(reward, function)) for candidate, function in walk]
    return sorted(found, key=lambda one: -one.reward)


def _safe(reward: Reward, function: FormulaFunction) -> float:
    try:
        value = float(reward(function))
    except (ArithmeticError, ValueError, OptrodeError):
        return 0.0
    return value if math.isfinite(value) else 0.0
