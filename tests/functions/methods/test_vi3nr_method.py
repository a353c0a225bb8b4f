"""VI3NR's gains against the constants of its code, closed forms, Kaiming's rule and sums of random numbers."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

import optrode as op
from optrode.errors import BadInput, NotFinite
from optrode.functions.methods.vi3nr import balance, best_deviation


def gain_squared(function: object, sigma: float) -> float:
    return float(op.functions.VI3NR(function, sigma).gain() ** 2)


def slow(function: object, derivative: object, sigma: float) -> tuple[float, float]:
    """gain^2 and balance by the trapezoid rule on two million points."""
    z = np.linspace(-14, 14, 2_000_001)
    density = np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    square = np.trapezoid(function(sigma * z) ** 2 * density, z)  # type: ignore[operator]
    slope = np.trapezoid(derivative(sigma * z) ** 2 * density, z)  # type: ignore[operator]
    return sigma**2 / square, sigma**2 * slope / square


@pytest.mark.parity("vi3nr")
def test_the_constants_of_the_code() -> None:
    for name, sigma, gain, condition in (
        ("tanh", 1.0, 2.536, 1.178), ("tanh", 0.1, 1.0198, 1.0001), ("sigmoid", 1.0, 3.409, 0.153),
        ("sigmoid", 6.8, 104.314, 1.0061), ("relu", 1.0, 2.0, 1.0), ("relu", 7.0, 2.0, 1.0),
    ):  # fmt: skip
        assert gain_squared(name, sigma) == pytest.approx(gain, rel=5e-4)
        assert balance(name, sigma) == pytest.approx(condition, abs=6e-4)


def test_kaimings_rule_for_leaky_functions() -> None:
    for slope in (0.0, 0.25, 0.9):
        leaky = op.functions.from_formula("x>=0: x; a*x", parameters={"a": slope})
        assert gain_squared(leaky, 2.0) == pytest.approx(2 / (1 + slope**2), abs=1e-10)
        assert gain_squared(leaky, 2.0) == pytest.approx(nn.init.calculate_gain("leaky_relu", slope) ** 2, abs=1e-10)


@pytest.mark.parity("vi3nr")
@pytest.mark.parametrize("sigma", [0.3, 1.0, 3.0])
def test_functions_of_implicit_networks_against_a_long_sum(sigma: float) -> None:
    s = 0.05
    cases = {
        "sin(30*x)": (lambda x: np.sin(30 * x), lambda x: 30 * np.cos(30 * x)),
        "exp(-x^2/(2*0.05^2))": (
            lambda x: np.exp(-(x**2) / (2 * s * s)), lambda x: -x / s**2 * np.exp(-(x**2) / (2 * s * s)),
        ),
        "cos(x)*exp(-x^2)": (
            lambda x: np.cos(x) * np.exp(-(x**2)),
            lambda x: -np.sin(x) * np.exp(-(x**2)) - 2 * x * np.cos(x) * np.exp(-(x**2)),
        ),
    }  # fmt: skip
    for formula, (f, df) in cases.items():
        own = op.functions.from_formula(formula)
        gain, condition = slow(f, df, sigma)
        assert gain_squared(own, sigma) == pytest.approx(gain, rel=1e-6), formula
        assert balance(own, sigma) == pytest.approx(condition, rel=1e-6), formula


@pytest.mark.parity("vi3nr")
def test_closed_form_of_the_sine() -> None:
    # E[sin^2(w z)] = (1 - exp(-2 w^2 sigma^2)) / 2, E[(w cos(w z))^2] = w^2 (1 + exp(-2 w^2 sigma^2)) / 2.
    sine, w, sigma = op.functions.from_formula("sin(30*x)"), 30.0, 0.02
    fade = math.exp(-2 * (w * sigma) ** 2)
    assert gain_squared(sine, sigma) == pytest.approx(2 * sigma**2 / (1 - fade), rel=1e-10)
    assert balance(sine, sigma) == pytest.approx((w * sigma) ** 2 * (1 + fade) / (1 - fade), rel=1e-10)


def test_the_best_deviation() -> None:
    assert best_deviation("relu") == pytest.approx(1), "all are as good, so the nearest to 1"
    assert best_deviation("sigmoid") == pytest.approx(6.755, abs=0.01)
    for name in ("sigmoid", "Gaussian (INR)", "sinc"):
        assert balance(name, best_deviation(name)) == pytest.approx(1, abs=1e-9)
    # A line at 0: the smaller the better.
    assert best_deviation("tanh") < 0.05 and balance("tanh", best_deviation("tanh")) == pytest.approx(1, abs=1e-5)
    assert op.functions.VI3NR("sigmoid").chosen() == best_deviation("sigmoid")


@pytest.mark.parametrize("uniform", [False, True])
def test_every_layer_has_the_deviation(uniform: bool) -> None:
    torch.manual_seed(0)
    method = op.functions.VI3NR("Gaussian (INR)", 0.3, uniform)
    sizes = [8, 1024, 1024, 1024]
    parts = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), method.module(b))]
    network = nn.Sequential(*parts)
    example = 5 + 2 * torch.randn(256, 8)
    method.initialise(network, example)
    h = example
    for number, part in enumerate(network):
        h = part(h)
        if number % 2 == 0:
            assert float(h.square().mean().sqrt()) == pytest.approx(0.3, rel=0.08), number
            assert float(part.bias.detach().abs().max()) == 0
    if uniform:
        bound = method.gain() * math.sqrt(3 / 1024)
        assert float(network[2].weight.abs().max()) <= bound
        assert float(network[2].weight.abs().max()) == pytest.approx(bound, rel=1e-3)


def test_the_variance_of_gradients_is_kept_where_the_balance_is_one() -> None:
    torch.manual_seed(0)
    name, depth, width = "sigmoid", 30, 512
    factors = {}
    for sigma in (best_deviation(name), 1.0):
        gain, f = op.functions.VI3NR(name, sigma).gain(), op.functions.get(name)
        start = (sigma * torch.randn(256, width)).requires_grad_()
        h = start
        for _ in range(depth):
            h = f(h) @ (gain / math.sqrt(width) * torch.randn(width, width))
        (grad,) = torch.autograd.grad(h, start, torch.randn(256, width))
        factors[sigma] = float(grad.square().mean()) ** (1 / depth)
    assert factors[best_deviation(name)] == pytest.approx(1, abs=0.05)
    assert factors[1.0] == pytest.approx(balance(name, 1.0), rel=0.1)


def test_what_it_refuses() -> None:
    with pytest.raises(BadInput, match="above 0"):
        op.functions.VI3NR("tanh", -1.0).gain()
    with pytest.raises(NotFinite, match="no gain"):
        op.functions.VI3NR(op.functions.from_formula("0*x"), 1.0).gain()
    with pytest.raises(BadInput, match="mixes elements"):
        op.functions.VI3NR("softmax").module(4)
