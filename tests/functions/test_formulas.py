"""Every elementwise row of the list against a literal twin in 60 digits, autograd, torch, and its own remarks."""

from __future__ import annotations

import math
import sys

import pytest
import torch
import torch.nn.functional as F
from functions_twin import slope, value
from mpmath import mpf

import optrode as op
from optrode.functions.table import forms

NAMES = op.functions.names(elementwise=True)
POINTS = [
    sign * size
    for sign in (1.0, -1.0)
    for size in (
        0.0, 2.0**-27, 2.0**-10, 0.125, 0.375, 0.703125, 1.3125, 2.25, 3.75, 6.375, 9.125, 17.375, 33.75, 47.125,
        88.375, 93.125, 200.75, 720.25, 3000.0,
    )
]  # fmt: skip
LARGEST = {torch.float32: float(torch.finfo(torch.float32).max), torch.float64: sys.float_info.max}

# From there on finite precision has no digits left: of a phase, or of a small difference of large numbers.
FAST = {"FINER": 10.0, "SIREN sine": 50.0, "TruG": 1000.0}


def plain(name: str) -> dict[str, float]:
    """Defaults as numbers; infinity, which 60 digits do not help with, as a large one."""
    defaults = op.functions.get(name).parameters
    return {key: 1e30 if math.isinf(one.default) else one.default for key, one in defaults.items()}


@pytest.mark.parity("survey-400")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_values_are_those_of_the_formula_in_60_digits(dtype: torch.dtype) -> None:
    wrong, compared = [], 0
    x = torch.tensor(POINTS, dtype=dtype)
    eps = torch.finfo(dtype).eps
    for name in NAMES:
        function, parameters = op.functions.get(name), plain(name)
        for point, got in zip(POINTS, function(x).double().tolist(), strict=True):
            true = value(function.formula, point, parameters)
            if true is None or abs(true) > 0.99 * LARGEST[dtype] or abs(point) > FAST.get(name, math.inf):
                continue
            compared += 1
            scale = (
                abs(true) * (1 + abs(point)) + 1 + abs(point) * (1 + _steepness(function.formula, point, parameters))
            )
            if not (math.isfinite(got) and abs(mpf(got) - true) <= 30 * eps * scale):
                wrong.append((name, point, got, float(true)))
    assert not wrong
    assert compared > 15_000


def _steepness(formula: str, point: float, parameters: dict[str, float]) -> float:
    """What a rounding of x may cost: |f'|, unless it is a jump."""
    slopes = [abs(one) for one in slope(formula, point, parameters) if one is not None]
    return float(min(max(slopes, default=0), 1e10)) if max(slopes, default=0) < 1e15 else 0.0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_derivatives_are_difference_quotients_in_60_digits(dtype: torch.dtype) -> None:
    """At a kink any number between the slopes of both sides will do."""
    wrong, compared = [], 0
    x = torch.tensor(POINTS, dtype=dtype)
    eps = torch.finfo(dtype).eps
    for name in NAMES:
        function, parameters = op.functions.get(name), plain(name)
        if function.surrogate:
            continue
        for point, got in zip(POINTS, function.derivative(x).double().tolist(), strict=True):
            right, left = slope(function.formula, point, parameters)
            if right is None or left is None or abs(point) > FAST.get(name, math.inf):
                continue
            low, high = min(right, left), max(right, left)
            steep = max(abs(low), abs(high))
            # Infinite slopes and jumps, and a kink that rounding moves (1 - 2^-27 is 1 in float32).
            if steep > (30 if point == 0 else 0.99 * LARGEST[dtype]) or (0 < abs(point) < 1e-6 and eps > 1e-10):
                continue
            compared += 1
            # The quotient of a power below 2 at 0 is no better than 1e-10.
            room = 200 * eps * (1 + steep) * (1 + abs(point)) + 1e-10
            if not (math.isfinite(got) and low - room <= got <= high + room):
                wrong.append((name, point, got, float(right)))
    assert not wrong
    assert compared > 14_000


def test_gradients_of_parameters_are_difference_quotients_in_60_digits() -> None:
    wrong, compared = [], 0
    points = [-2.25, -0.703125, 0.375, 1.3125, 3.75]
    x = torch.tensor(points, dtype=torch.float64)
    for name in NAMES:
        function, parameters = op.functions.get(name), plain(name)
        if function.surrogate:
            continue
        order = list(function.parameters)
        values = [torch.tensor(parameters[key], dtype=torch.float64) for key in order]
        for place, key in enumerate(order):
            got = function.operation.by(1 + place)(x, values).tolist()
            for point, one in zip(points, got, strict=True):
                # The twin takes the parameter for its variable.
                try:
                    right, left = _by_parameter(function.formula, key, point, parameters)
                except TypeError:
                    continue
                if abs(right - left) > 1e-6 * (1 + abs(right)):
                    continue
                compared += 1
                if abs(one - right) > 1e-9 * (1 + abs(right)):
                    wrong.append((name, key, point, one, float(right)))
    assert not wrong
    assert compared > 1500


def _by_parameter(formula: str, key: str, point: float, parameters: dict[str, float]) -> tuple[float, float]:
    from functions_twin import STEP, twin

    run = twin(formula)
    exact = {name: mpf(one) for name, one in parameters.items()}
    step = STEP * max(abs(exact[key]), 1)
    at = [run(mpf(point), {**exact, key: exact[key] + k * step}) for k in (-1, 0, 1)]
    return float((at[2] - at[1]) / step), float((at[1] - at[0]) / step)


def test_derivatives_are_those_of_autograd_where_autograd_gives_a_number() -> None:
    x = torch.linspace(-6.03, 6.01, 500, dtype=torch.float64)
    compared = 0
    for name in NAMES:
        function = op.functions.get(name)
        if function.surrogate:
            continue
        own = x.clone().requires_grad_()
        values = [torch.tensor(one.default, dtype=torch.float64) for one in function.parameters.values()]
        result = function.operation.forward(own, values)
        auto = torch.autograd.grad(result.sum(), own)[0] if result.requires_grad else torch.zeros_like(x)
        got = function.derivative(x)
        there = torch.isfinite(auto) & torch.isfinite(got)
        # Where autograd rounds: FINER's slopes are in the thousands.
        assert torch.allclose(auto[there], got[there], rtol=1e-7, atol=1e-9), name
        compared += int(there.sum())
    assert compared > 0.99 * 500 * len(NAMES) * 0.98


def test_second_derivatives() -> None:
    x = torch.linspace(-3.03, 3.01, 40, dtype=torch.float64, requires_grad=True)
    for name in ("GELU", "Mish", "ExpExpish", "SiLU", "SRS", "TruG", "APA", "PELU", "sinc", "Snake", "Smish"):
        function = op.functions.get(name)
        assert torch.autograd.gradgradcheck(function, (x,)), name


def test_pieces_meet_where_the_list_does_not_say_jump() -> None:
    jumps = set()
    for name in NAMES:
        function = op.functions.get(name)
        if any(_jump(function, low, high) for low, high in _borders(function)):
            jumps.add(name)
    said = {name for name in NAMES if op.functions.get(name).row.jumps}
    # The remark of these speaks of other parameters than the defaults.
    conditional = {"threshold", "T-swish"}
    assert not jumps - said
    assert said - jumps <= conditional


def _borders(function: op.functions.Function) -> list[tuple[float, float]]:
    """Neighbouring floating point numbers between which any condition of the formula changes."""
    from optrode.functions.expression import CONDITIONS, Call, nodes
    from optrode.functions.parser import parse
    from optrode.functions.program import program

    found = []
    values = [torch.tensor(one.default, dtype=torch.float64) for one in function.parameters.values()]
    grid = torch.linspace(-30.0137, 30.0211, 12001, dtype=torch.float64)
    for node in nodes(parse(function.formula)):
        if isinstance(node, Call) and (node.operation in CONDITIONS or node.operation in ("sgn", "floor")):
            holds = program(node, tuple(function.parameters))
            state = holds(grid, values).broadcast_to(grid.shape)
            for place in (state[1:] != state[:-1]).nonzero().flatten().tolist():
                low, high = float(grid[place]), float(grid[place + 1])
                before = state[place]
                for _ in range(80):
                    middle = (low + high) / 2
                    if bool((holds(torch.tensor([middle], dtype=torch.float64), values) == before).all()):
                        low = middle
                    else:
                        high = middle
                found.append((low, high))
    return found


def _jump(function: op.functions.Function, low: float, high: float) -> bool:
    ends = function(torch.tensor([low - 1e-13, high + 1e-13], dtype=torch.float64))
    return bool((ends[0] - ends[1]).abs() > 1e-5)


def test_finite_in_float32_wherever_float64_has_a_number() -> None:
    """From there on a square leaves the range of float32."""
    x = torch.tensor([sign * size for sign in (1, -1) for size in (1e2, 1e4, 1e7, 1e10, 1e15)])
    for name in NAMES:
        function = op.functions.get(name)
        for what in (function, function.derivative):
            narrow, wide = what(x).double(), what(x.double())
            there = torch.isfinite(wide) & (wide.abs() < LARGEST[torch.float32])
            assert torch.isfinite(narrow[there]).all(), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_float32_rounded_once(dtype: torch.dtype) -> None:
    x = torch.linspace(-9, 9, 300).to(dtype)
    for name in ("GELU", "Mish", "SELU", "PFLU", "logish", "hard swish"):
        function = op.functions.get(name)
        assert torch.equal(function(x), function(x.float()).to(dtype)), name


TWINS = {
    "relu": F.relu, "relu6": F.relu6, "elu": F.elu, "selu": F.selu, "celu": F.celu, "gelu": F.gelu, "silu": F.silu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"), "mish": F.mish, "softplus": F.softplus, "tanh": torch.tanh,
    "sigmoid": torch.sigmoid, "hard swish": F.hardswish, "hard sigmoid (1/6)": F.hardsigmoid, "hardtanh": F.hardtanh,
    "leaky relu": F.leaky_relu, "softsign": F.softsign, "tanhshrink": F.tanhshrink, "softshrink": F.softshrink,
    "hardshrink": F.hardshrink, "LogSigmoid": F.logsigmoid, "log-cosh": lambda x: torch.logaddexp(x, -x) - math.log(2),
    "probit": torch.special.ndtr, "erf": torch.erf, "asinh": torch.asinh, "arctan": torch.atan, "sine": torch.sin,
    "prelu": lambda x: F.prelu(x, torch.tensor([0.25], dtype=x.dtype)), "abs": None,
}  # fmt: skip


@pytest.mark.parity("survey-400")
@pytest.mark.parametrize("name", [name for name, twin in TWINS.items() if twin])
def test_parity_with_torch(name: str) -> None:
    twin = TWINS[name]
    assert twin is not None
    # From 20 on torch's softplus is x itself; its hard sigmoid's slope is 1/6 rounded to float32.
    x = torch.linspace(-20.03, 19.97, 4001, dtype=torch.float64, requires_grad=True)
    ours, theirs = op.functions.get(name)(x), twin(x)
    assert (ours - theirs).abs().max() < 1e-12
    (a,), (b,) = torch.autograd.grad(ours.sum(), x), torch.autograd.grad(theirs.sum(), x)
    assert (a - b).abs().max() < (1e-8 if name == "hard sigmoid (1/6)" else 1e-12)


def test_relu_and_its_kin_are_flat_at_the_kink_as_in_torch() -> None:
    for name, twin in (("relu", F.relu), ("relu6", F.relu6), ("hardtanh", F.hardtanh), ("softshrink", F.softshrink)):
        x = torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0, 6.0], requires_grad=True)
        (ours,), (theirs,) = (torch.autograd.grad(f(x).sum(), x) for f in (op.functions.get(name), twin))
        assert torch.equal(ours, theirs), name


def test_a_stable_form_is_the_same_function() -> None:
    """In 60 digits, so that neither form loses anything."""
    for name, known in forms().items():
        if "stable" not in known:
            continue
        function = op.functions.get(name)
        x = torch.linspace(-3.03, 3.01, 61, dtype=torch.float64)
        values = {key: one.default for key, one in function.parameters.items()}
        own = op.functions.from_formula(function.formula, parameters=values)(x)
        good = torch.isfinite(own)
        assert torch.allclose(own[good], function(x)[good], rtol=1e-8, atol=1e-10), name


def test_surrogates() -> None:
    x = torch.tensor([-2.0, -0.05, -0.04, 0.0, 0.3, 2.0], dtype=torch.float64, requires_grad=True)
    helu = op.functions.get("HeLU")
    assert torch.equal(helu(x), F.relu(x))
    (grad,) = torch.autograd.grad(helu(x).sum(), x)
    assert grad.tolist() == [0, 0, 1, 1, 1, 1]
    spike = op.functions.get("ATan surrogate spike")
    (grad,) = torch.autograd.grad(spike(x).sum(), x)
    assert torch.allclose(grad, 1 / (1 + (math.pi * x.detach()) ** 2))
