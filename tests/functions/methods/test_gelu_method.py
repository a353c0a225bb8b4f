"""GELU against erfc of the standard library, PyTorch, and the facts that its paper's curve has."""

from __future__ import annotations

import math

import pytest
import torch

import optrode as op
from optrode.errors import BadInput

X = [-8.0, -3.0, -math.sqrt(2), -0.751792, -0.1, 0.0, 0.5, math.sqrt(2), 3.0, 8.0]


def slow(x: float, mu: float = 0.0, sigma: float = 1.0) -> float:
    """x times the probability that a normal number lies below it."""
    return x * 0.5 * math.erfc(-(x - mu) / sigma / math.sqrt(2))


@pytest.mark.parity("gelu")
def test_exact_and_general_form():
    x = torch.tensor(X, dtype=torch.float64)
    got = op.functions.GELU().module(1)(x)
    assert got.tolist() == pytest.approx([slow(v) for v in X], rel=1e-12, abs=1e-300)
    general = op.functions.GELU(mu=0.3, sigma=2.0).module(1)(x)
    assert general.tolist() == pytest.approx([slow(v, 0.3, 2.0) for v in X], rel=1e-6)
    assert float(op.functions.GELU().module(1)(torch.tensor(-8.0))) == pytest.approx(slow(-8.0), rel=1e-5)


@pytest.mark.parity("gelu")
def test_tanh_and_sigmoid_forms_and_how_far_off_they_are():
    x = torch.linspace(-8, 8, 20001, dtype=torch.float64)
    exact, tanh, sigmoid = (op.functions.GELU(form=form).module(1)(x) for form in ("exact", "tanh", "sigmoid"))
    by_hand = 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    torch.testing.assert_close(tanh, by_hand, atol=1e-12, rtol=1e-10)
    torch.testing.assert_close(sigmoid, x / (1 + torch.exp(-1.702 * x)), atol=1e-12, rtol=1e-10)
    torch.testing.assert_close(tanh, torch.nn.functional.gelu(x, approximate="tanh"), atol=1e-12, rtol=1e-10)
    assert float((tanh - exact).abs().max()) == pytest.approx(4.7e-4, abs=0.05e-4)
    assert float((sigmoid - exact).abs().max()) == pytest.approx(0.0203, abs=5e-5)


def test_minimum_and_slopes():
    x = torch.tensor([-0.751792, 0.0, math.sqrt(2), -math.sqrt(2)], dtype=torch.float64, requires_grad=True)
    y = op.functions.GELU().module(1)(x)
    y.sum().backward()
    assert float(y[0]) == pytest.approx(-0.169971, abs=1e-6)
    assert x.grad.tolist() == pytest.approx([0, 0.5, 1.1289, -0.1289], abs=1e-4)


def test_masks_have_the_mean_and_replay():
    method = op.functions.GELU(form="stochastic", seed=3)
    x = torch.tensor([-1.0, 0.3, 2.0]).expand(100_000, 3)
    first, second = method.module(3), method.module(3)
    drawn = first(x)
    assert torch.equal(drawn, second(x))
    assert set(drawn[:, 2].tolist()) == {0.0, 2.0}
    wanted, chance = torch.tensor([slow(v) for v in (-1.0, 0.3, 2.0)]), torch.special.ndtr(x[0])
    error = x[0].abs() * (chance * (1 - chance) / 100_000).sqrt()
    assert bool(((drawn.mean(0) - wanted).abs() < 4 * error).all())
    torch.testing.assert_close(first.eval()(x[0]), wanted)


def test_wrong_settings():
    with pytest.raises(BadInput, match="did you mean tanh"):
        op.functions.GELU(form="tan").module(1)
    with pytest.raises(BadInput, match="positive"):
        op.functions.GELU(sigma=0.0).module(1)
    with pytest.raises(BadInput, match="exact form"):
        op.functions.GELU(form="tanh", mu=1.0).module(1)
