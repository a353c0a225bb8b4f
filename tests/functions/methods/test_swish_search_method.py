"""Swish against torch and its closed form; the search space against a literal evaluator of core units."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
import torch
from scipy.special import erf

import optrode as op
from optrode.errors import BadInput, UnknownName
from optrode.functions.controller import learn
from optrode.functions.of_formula import FormulaFunction
from optrode.functions.search import BINARY, UNARY, Candidate, Space, Unit, distinct, score

# A second writing of the operators, in numpy. Every number b is 1.
SLOW_UNARY = {
    "x": lambda u: u, "-x": lambda u: -u, "abs": np.abs, "square": np.square, "cube": lambda u: u * u * u,
    "sqrt": lambda u: np.sqrt(np.abs(u) + 1e-6), "scale": lambda u: u, "shift": lambda u: u + 1,
    "ln": lambda u: np.log(np.abs(u) + 1e-6), "exp": lambda u: np.exp(np.minimum(u, 20)), "sin": np.sin,
    "cos": np.cos, "sinh": lambda u: np.sinh(np.clip(u, -20, 20)), "cosh": lambda u: np.cosh(np.clip(u, -20, 20)),
    "tanh": np.tanh, "asinh": np.arcsinh, "arctan": np.arctan, "sinc": lambda u: np.sinc(u / np.pi),
    "max0": lambda u: np.maximum(u, 0), "min0": lambda u: np.minimum(u, 0),
    "sigmoid": lambda u: 1 / (1 + np.exp(-u)), "softplus": lambda u: np.log(1 + np.exp(u)),
    "gauss": lambda u: np.exp(-u * u), "erf": erf, "constant": lambda u: np.ones_like(u),
}  # fmt: skip
SLOW_BINARY = {
    "add": np.add, "mul": np.multiply, "sub": np.subtract, "div": lambda u, v: u * v / (v * v + 1e-6),
    "max": np.maximum, "min": np.minimum, "gate": lambda u, v: v / (1 + np.exp(-u)),
    "gauss": lambda u, v: np.exp(-((u - v) ** 2)), "laplace": lambda u, v: np.exp(-np.abs(u - v)),
    "mix": lambda u, v: u,
}  # fmt: skip


def slow(candidate: Candidate, x: np.ndarray) -> np.ndarray:
    below = x
    for unit in candidate.units:
        first, second = (below if use else x for use in unit.from_below)
        below = SLOW_BINARY[unit.binary](SLOW_UNARY[unit.first](first), SLOW_UNARY[unit.second](second))
    return below


@pytest.mark.parity("swish-search")
def test_every_pair_of_operators_is_what_it_says() -> None:
    x = np.linspace(-3.03, 3.01, 41)
    assert SLOW_UNARY.keys() == UNARY.keys() and SLOW_BINARY.keys() == BINARY.keys()
    cases = [
        Unit(b, u, v) for b, (u, v) in itertools.product(BINARY, zip(UNARY, [*UNARY][3:] + [*UNARY][:3], strict=True))
    ]
    for unit in cases:
        candidate = Candidate((unit,))
        found = candidate.function()(torch.tensor(x)).numpy()
        assert np.allclose(found, slow(candidate, x), rtol=1e-6, atol=1e-9), candidate.name


@pytest.mark.parity("swish-search")
def test_stacked_units_against_the_literal_evaluator() -> None:
    space, draws, x = Space(units=3), random.Random(0), np.linspace(-1.5, 1.5, 13)
    compared = 0
    for _ in range(60):
        candidate = space.draw(draws)
        wanted = slow(candidate, x)
        if not np.isfinite(wanted).all() or np.abs(wanted).max() > 1e6:
            continue
        try:
            found = candidate.function()(torch.tensor(x)).numpy()
        except BadInput as problem:
            assert "character" in str(problem) or "levels" in str(problem)
            continue
        compared += 1
        assert np.allclose(found, wanted, rtol=1e-5, atol=1e-7), candidate.name
    assert compared > 30


def test_numbers_to_train_are_one_for_each_place() -> None:
    unit = Unit("mix", "scale", "shift")
    function = Candidate((unit,)).function()
    x = torch.tensor([2.0])
    assert list(function.parameters) == ["b1", "b2", "b3"]
    assert float(function(x, b1=3.0, b2=0.5, b3=0.25)) == pytest.approx(0.25 * 6 + 0.75 * 2.5)


@pytest.mark.parity("swish-search")
def test_swish_is_silu_and_its_gradients_are_the_paper_s() -> None:
    x = torch.linspace(-6, 6, 101, dtype=torch.float64)
    module = op.functions.SwishSearch().module(101)
    assert torch.allclose(module(x.float()), torch.nn.functional.silu(x.float()), atol=1e-6)
    assert module.b.shape == (101,) and module.b.requires_grad
    beta = torch.full((101,), 1.7, dtype=torch.float64, requires_grad=True)
    x = x.requires_grad_()
    y = module.function(x, b=beta)
    by_x, by_beta = torch.autograd.grad(y.sum(), [x, beta])
    s = torch.sigmoid(1.7 * x)
    assert torch.allclose(by_x, 1.7 * y + s * (1 - 1.7 * y), atol=1e-10)
    assert torch.allclose(by_beta, x**2 * s * (1 - s), atol=1e-10)


def test_swish_s_limits_and_minimum() -> None:
    x = torch.linspace(-5, 5, 4001, dtype=torch.float64)
    swish = op.functions.SwishSearch().module(1).function
    assert torch.allclose(swish(x, b=0.0), x / 2)
    assert torch.allclose(swish(x, b=1e4), x.relu(), atol=1e-4)
    y = swish(x, b=1.0)
    assert float(y.min()) == pytest.approx(-0.27846, abs=1e-5)
    assert float(x[y.argmin()]) == pytest.approx(-1.2785, abs=2e-3)
    fixed = op.functions.SwishSearch(beta=2.0, trainable=False).module(3)
    assert not list(fixed.parameters()) and float(fixed.b[0]) == 2


def test_the_space_is_counted_and_mirrors_are_left_out() -> None:
    space = Space(("x", "sigmoid", "tanh"), ("mul", "sub"))
    assert space.size == 2 * 3 * 3
    assert len(space.all()) == 9 + 6, "sub has an order, mul has none"
    names = [candidate.name for candidate, _ in distinct(space.all())]
    assert "sub(x, x)" not in names, "a constant"
    doubled = Space(("x", "scale"), ("mul",))
    assert len(distinct(doubled.all())) == 1, "scale(x) starts as x"
    with pytest.raises(BadInput, match="at random"):
        Space(units=2).all()
    with pytest.raises(UnknownName, match="did you mean"):
        Space(("sigmoyd",))


def near_silu(function: FormulaFunction) -> float:
    x = torch.linspace(-4, 4, 50)
    return 1 / (1 + float((function(x) - torch.nn.functional.silu(x)).square().mean()))


SMALL = {"unary": ("x", "sigmoid", "tanh", "max0", "square"), "binary": ("mul", "add", "max")}


def test_an_exhaustive_search_finds_what_is_there() -> None:
    found = op.functions.SwishSearch(strategy="exhaustive", **SMALL).search(near_silu)
    assert found[0].candidate.name == "mul(sigmoid(x), x)" and found[0].reward == pytest.approx(1)
    assert [one.reward for one in found] == sorted((one.reward for one in found), reverse=True)


def test_random_draws_keep_to_the_budget_and_to_the_seed() -> None:
    method = op.functions.SwishSearch(strategy="random", budget=20, seed=3, **SMALL)
    first, second = method.search(near_silu), method.search(near_silu)
    assert 0 < len(first) <= 20
    assert [one.candidate for one in first] == [one.candidate for one in second]


def test_what_is_no_number_counts_as_zero() -> None:
    pair = [(c, c.function()) for c in (Candidate((Unit("mul", "x", "sigmoid"),)), Candidate((Unit("add", "x", "x"),)))]

    def reward(function: FormulaFunction) -> float:
        if function.name.startswith("mul"):
            return math.nan
        raise ZeroDivisionError

    assert [one.reward for one in score(pair, reward)] == [0.0, 0.0]


def test_the_controller_learns_what_is_rewarded() -> None:
    """One part decides the reward: its share among the last tries must be well above chance."""
    space = Space(("x", "sigmoid", "tanh", "max0"), ("mul", "add", "max", "min"))
    shares = []
    for seed in range(3):
        tried = learn(space, lambda c: float(c.units[0].binary == "min"), 240, seed=seed)
        shares.append(sum(one.reward for one in tried[-60:]) / 60)
    assert min(shares) > 0.6 > 2 * 0.25
    method = op.functions.SwishSearch(strategy="controller", budget=40, **SMALL)
    assert method.search(near_silu)[0].reward > 0.5
    with pytest.raises(BadInput, match="no strategy"):
        op.functions.SwishSearch(strategy="genetic")
