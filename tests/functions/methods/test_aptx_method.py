"""APTx by its formula with e^x, and its identities with Swish and Mish."""

from __future__ import annotations

import pytest
import torch

import optrode as op


@pytest.mark.parity("aptx")
@pytest.mark.parametrize("settings", [(1.0, 1.0, 0.5), (0.8, 0.7, 0.6)])
def test_values_and_gradient_by_exponentials(settings: tuple[float, float, float]):
    alpha, beta, gamma = settings
    x = torch.linspace(-20, 20, 801, dtype=torch.float64, requires_grad=True)
    y = op.functions.APTx(alpha=alpha, beta=beta, gamma=gamma).module(1).double()(x)
    y.sum().backward()
    v = x.detach()
    tanh = 1 - 2 / (1 + torch.exp(2 * beta * v))
    torch.testing.assert_close(y.detach(), gamma * v * (alpha + tanh), atol=1e-6, rtol=1e-6)
    wanted = gamma * (alpha + tanh + beta * v * (1 - tanh**2))
    torch.testing.assert_close(x.grad, wanted, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("beta", [0.5, 1.0, 1.7])
def test_it_is_swish(beta: float):
    x = torch.linspace(-20, 20, 801, dtype=torch.float64)
    method = op.functions.APTx(beta=beta)
    scale, slope = method.as_swish()
    torch.testing.assert_close(method.module(1).double()(x), scale * x * torch.sigmoid(slope * x), atol=1e-6, rtol=1e-6)
    assert op.functions.APTx(alpha=0.9).as_swish() is None
    if beta == 0.5:
        torch.testing.assert_close(method.module(1).double()(x), torch.nn.functional.silu(x), atol=1e-6, rtol=1e-6)


def test_how_near_mish_it_is():
    x = torch.linspace(-30, 30, 60001, dtype=torch.float64)
    mish = torch.nn.functional.mish(x)
    gap = {beta: (op.functions.APTx(beta=beta).module(1).double()(x) - mish).abs() for beta in (0.5, 1.0)}
    assert float(gap[1.0][x >= 0].max()) == pytest.approx(0.0255, abs=1e-3)
    assert float(gap[0.5][x < 0].max()) == pytest.approx(0.036, abs=1e-3)
    assert float(gap[1.0][x < 0].max()) == pytest.approx(0.228, abs=1e-3)


def test_three_trained_numbers():
    module = op.functions.APTx(trainable=True).module(4)
    assert {name: float(value) for name, value in module.named_parameters()} == {"a": 1.0, "b": 1.0, "g": 0.5}
    assert not list(op.functions.APTx().module(4).parameters())
