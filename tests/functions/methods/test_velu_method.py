"""VeLU in NumPy, its two gradients, its running deviation, and the transport distance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import optrode as op
from optrode.errors import BadInput
from optrode.functions.methods.velu import transport_distance

X = torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2


def slow(x: np.ndarray, deviation: float, second: Any = np.arcsin) -> np.ndarray:
    inner = np.clip(0.5 * x, -1 + 1e-6, 1 - 1e-6) if second is np.arcsin else 0.5 * x
    gate = 1 / (1 + np.exp(-(np.arctan(x) + second(inner))))
    return x * gate * np.clip(1 + 0.5 * np.tanh(deviation), 0.5, 2)


@pytest.mark.parity("velu")
@pytest.mark.parametrize("second", ["arcsin", "sin"])
def test_values_in_training_and_in_use(second: str):
    module = op.functions.VeLU(second=second).module(5).double()
    ufunc = getattr(np, second)
    np.testing.assert_allclose(module(X).detach().numpy(), slow(X.numpy(), X.numpy().std(), ufunc), rtol=1e-6)
    running = 0.9 + 0.1 * X.numpy().std()
    assert float(module.running) == pytest.approx(running)
    np.testing.assert_allclose(module.eval()(X).detach().numpy(), slow(X.numpy(), running, ufunc), rtol=1e-6)


@pytest.mark.parity("velu")
@pytest.mark.parametrize("detached", [False, True])
def test_gradient_with_the_deviation_in_the_graph_or_not(detached: bool):
    x = X.clone().requires_grad_(True)
    op.functions.VeLU(detached=detached).module(5).double()(x).sum().backward()
    fixed, step = X.numpy().std(), 1e-6
    wanted = np.zeros(X.shape)
    for place in np.ndindex(*X.shape):
        ends = []
        for sign in (1, -1):
            moved = X.numpy().copy()
            moved[place] += sign * step
            ends.append(slow(moved, fixed if detached else moved.std()).sum())
        wanted[place] = (ends[0] - ends[1]) / (2 * step)
    np.testing.assert_allclose(x.grad.numpy(), wanted, rtol=1e-4, atol=1e-5)


def test_penalty_is_that_of_all_its_layers():
    method = op.functions.VeLU(transport=2.0)
    network = torch.nn.Sequential(method.module(5), method.module(5)).double()
    network(X)
    first = network[0](X)
    by_hand = [float(v.mean() ** 2 + (v.std(unbiased=False) - 1) ** 2) for v in (X, first)]
    network(X)
    assert float(method.penalty(network)) == pytest.approx(2 * sum(by_hand), rel=1e-4)
    assert op.functions.VeLU(transport=0.0).penalty(network) is None


def test_transport_by_sorting_equals_the_closed_form_of_gaussians():
    sample = 0.5 + 1.5 * torch.randn(100_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert float(transport_distance(sample)) == pytest.approx(0.5**2 + 0.5**2, abs=0.02)


def test_wrong_settings():
    with pytest.raises(BadInput, match="did you mean sin"):
        op.functions.VeLU(second="sine").module(1)
