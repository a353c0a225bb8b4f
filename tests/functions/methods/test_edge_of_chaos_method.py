"""The edge of chaos against adaptive quadrature, closed forms, and real networks."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import brentq
from torch import nn

import optrode as op
from optrode.errors import BadInput
from optrode.functions.chaos import Edge, edge
from optrode.functions.moments import jumps, kinks, product_moment, second_moment, slope_jumps

Scalar = Callable[[float], float]
# Functions and derivatives, written out.
WRITTEN: dict[str, tuple[Scalar, Scalar]] = {
    "tanh": (math.tanh, lambda x: 1 - math.tanh(x) ** 2),
    "silu": (
        lambda x: x / (1 + math.exp(-x)),
        lambda x: (1 + math.exp(-x) + x * math.exp(-x)) / (1 + math.exp(-x)) ** 2,
    ),
    "elu": (lambda x: x if x > 0 else math.expm1(x), lambda x: 1.0 if x > 0 else math.exp(x)),
}
# (sigma_b, sigma_w) of the card, by another solver.
TABLE = {
    "tanh": [(0.05, 1.1225), (0.2, 1.3041), (0.5, 1.5497), (1.0, 1.8556)],
    "silu": [(0.05, 1.905), (0.2, 1.6795), (0.5, 1.457), (1.0, 1.4016)],
}


def mean(g: Scalar, q: float) -> float:
    """E[g(h)^2], by adaptive quadrature on both sides of 0."""
    deviation = math.sqrt(q)
    f = lambda z: g(deviation * z) ** 2 * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)  # noqa: E731
    return float(quad(f, -12, 0, limit=200)[0] + quad(f, 0, 12, limit=200)[0])


def slow_edge(name: str, sigma_b: float) -> tuple[float, float]:
    """q and sigma_w, by a root finder on the equation of the card, from the smallest variance on."""
    phi, slope = WRITTEN[name]
    gap = lambda q: sigma_b**2 + mean(phi, q) / mean(slope, q) - q  # noqa: E731
    high = sigma_b**2 * 1.2
    while gap(high) > 0:
        high *= 1.2
    q = brentq(gap, high / 1.2, high, xtol=1e-10)
    return q, 1 / math.sqrt(mean(slope, q))


def point(function: object, sigma_b: float) -> Edge:
    found = edge(function, sigma_b)  # type: ignore[arg-type]
    assert isinstance(found, Edge)
    return found


@pytest.mark.parity("edge-of-chaos")
@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("sigma_b", [0.05, 0.2, 1.0])
def test_the_solver_against_a_root_finder(name: str, sigma_b: float) -> None:
    found, (q, sigma_w) = point(name, sigma_b), slow_edge(name, sigma_b)
    assert found.state == "regular"
    assert found.variance == pytest.approx(q, rel=1e-5)
    assert found.weight_deviation == pytest.approx(sigma_w, rel=1e-6)


@pytest.mark.parametrize("name", TABLE)
def test_the_values_of_the_card(name: str) -> None:
    for sigma_b, sigma_w in TABLE[name]:
        assert point(name, sigma_b).weight_deviation == pytest.approx(sigma_w, abs=1e-3)


@pytest.mark.parity("edge-of-chaos")
def test_kinked_functions_have_their_point_at_zero_biases() -> None:
    relu = point("relu", 0.0)
    assert relu.weight_deviation == pytest.approx(math.sqrt(2), abs=1e-12) and relu.state == "any variance"
    assert relu.power == 2 and relu.rate == pytest.approx(9 * math.pi**2 / 2, rel=1e-6)
    for slope in (0.1, 0.5):
        leaky = op.functions.from_formula("x>=0: x; a*x", parameters={"a": slope})
        assert point(leaky, 0.0).weight_deviation == pytest.approx(math.sqrt(2 / (1 + slope**2)), abs=1e-12)
    assert point("relu", 0.1).state == "diverging" and math.isnan(point("relu", 0.1).weight_deviation)
    assert point("tanh", 0.0).state == "vanishing" and point("tanh", 0.0).weight_deviation == pytest.approx(1)
    assert point("binary step", 0.1).state == "none"
    with pytest.raises(BadInput, match="0 or more"):
        edge("tanh", -1)


@pytest.mark.parametrize(("name", "sigma_b"), [("tanh", 0.3), ("gelu", 0.5), ("hardtanh", 0.5), ("elu", 0.2)])
def test_slope_and_variance_stay_at_the_point(name: str, sigma_b: float) -> None:
    found = point(name, sigma_b)
    weights = found.weight_deviation**2
    signal = op.functions.maps(
        name, 5, weight_variance=weights, bias_variance=sigma_b**2, variance=found.variance, correlation=1.0
    )
    assert all(slope == pytest.approx(1, abs=1e-6) for slope in signal.slope)
    assert all(q == pytest.approx(found.variance, rel=1e-6) for q in signal.variance)
    assert all(c == pytest.approx(1, abs=1e-9) for c in signal.correlation)


@pytest.mark.parametrize(("name", "sigma_b"), [("tanh", 0.2), ("relu", 0.0), ("hardtanh", 0.5)])
def test_correlations_approach_one_at_the_stated_rate(name: str, sigma_b: float) -> None:
    found = point(name, sigma_b)
    depth = 240
    signal = op.functions.maps(
        name, depth, weight_variance=found.weight_deviation**2, bias_variance=sigma_b**2, variance=found.variance,
        correlation=0.9,
    )  # fmt: skip
    # (1 - c)^(-1/power) grows by rate^(-1/power) a layer, wherever it began.
    first, last = ((1 - signal.correlation[layer]) ** (-1 / found.power) for layer in (depth // 2, depth))
    assert (last - first) / (depth / 2) == pytest.approx(found.rate ** (-1 / found.power), rel=0.03)


def test_moments_at_kinks() -> None:
    assert kinks(op.functions.get("relu6")) == (0.0, 6.0)
    assert slope_jumps(op.functions.get("relu6")) == {0.0: pytest.approx(1), 6.0: pytest.approx(-1)}
    assert jumps(op.functions.get("hardshrink")) == (-0.5, 0.5) and not jumps(op.functions.get("gelu"))
    # E[clip(z)^2] = erf(1/sqrt 2) - 2 phi(1) + 2 (1 - Phi(1)).
    inside, outside = math.erf(1 / math.sqrt(2)), math.erfc(1 / math.sqrt(2))
    exact = inside - 2 * math.exp(-0.5) / math.sqrt(2 * math.pi) + outside
    assert second_moment(op.functions.get("hardtanh"), 1.0) == pytest.approx(exact, abs=1e-12)
    relu = op.functions.get("relu")
    for c in (-0.9, 0.0, 0.5, 0.999, 0.9999999):
        kernel = (math.sqrt(1 - c * c) + c * (math.pi - math.acos(c))) / (2 * math.pi)
        assert product_moment(relu, 1.0, c) == pytest.approx(kernel, abs=1e-12)


def test_a_real_network_stays_there() -> None:
    """Twenty layers of a thousand neurons, variance and correlation within the errors of sixteen networks."""
    found = point("tanh", 0.2)
    seen = op.functions.measured(
        "tanh", 20, weight_variance=found.weight_deviation**2, bias_variance=0.04, variance=found.variance,
        correlation=0.6, width=1000, networks=16,
    )  # fmt: skip
    assert seen.within(4)
    for got in seen.mean.variance:
        assert got == pytest.approx(found.variance, rel=0.1)


def test_the_initialiser() -> None:
    torch.manual_seed(0)
    method = op.functions.EdgeOfChaos("tanh", 0.3)
    network = nn.Sequential(nn.Conv1d(3, 64, 5), method.module(64, axis=1), nn.Flatten(), nn.Linear(64 * 28, 2000))
    example = 3 * torch.randn(16, 3, 32)
    method.initialise(network, example)
    found = method.point()
    last, first = network[3], network[0]
    assert float(last.weight.detach().std()) * math.sqrt(64 * 28) == pytest.approx(found.weight_deviation, rel=0.01)
    assert float(last.bias.detach().std()) == pytest.approx(0.3, rel=0.05)
    for given in (first(example), network(example)):
        assert float(given.detach().square().mean()) == pytest.approx(found.variance, rel=0.15)


def test_relu_is_he_and_without_an_edge_it_says_so() -> None:
    torch.manual_seed(0)
    ours, he, example = nn.Linear(50, 400), nn.Linear(50, 400), torch.randn(4, 50)
    torch.manual_seed(1)
    op.functions.EdgeOfChaos("relu", 0.0).initialise(ours, example)
    torch.manual_seed(1)
    nn.init.kaiming_normal_(he.weight, nonlinearity="relu")
    assert torch.allclose(ours.weight, he.weight) and float(ours.bias.detach().abs().max()) == 0
    with pytest.raises(BadInput, match=r"no edge of chaos .*set bias_deviation=0"):
        op.functions.EdgeOfChaos("relu", 0.2).initialise(ours, example)
