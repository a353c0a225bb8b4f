"""PolyReLU and PolyNorm in NumPy, the norm's invariance, the order of published weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import optrode as op
from optrode.errors import BadInput, WrongShape
from optrode.functions.methods.polycom import from_checkpoint

X = torch.randn(5, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
COEFFICIENTS = np.array([0.2, -0.5, 0.7])


def norm(u: np.ndarray) -> np.ndarray:
    return np.array([[v / np.sqrt(np.mean([w * w for w in row]) + 1e-6) for v in row] for row in u])


def slow_norm(x: np.ndarray) -> np.ndarray:
    return sum(COEFFICIENTS[i - 1] * norm(x**i) for i in (1, 2, 3)) + 0.1


@pytest.mark.parity("polycom")
def test_poly_norm_and_its_gradient():
    module = op.functions.PolyCom().module(7).double()
    with torch.no_grad():
        module.a.copy_(torch.from_numpy(COEFFICIENTS))
        module.b.fill_(0.1)
    x = X.clone().requires_grad_(True)
    y = module(x)
    np.testing.assert_allclose(y.detach().numpy(), slow_norm(X.numpy()), rtol=1e-5)
    weights = torch.linspace(-1, 1, 35, dtype=torch.float64).view(5, 7)
    (y * weights).sum().backward()
    for place in [(0, 0), (2, 3), (4, 6)]:
        ends = []
        for sign in (1, -1):
            moved = X.numpy().copy()
            moved[place] += sign * 1e-6
            ends.append((slow_norm(moved) * weights.numpy()).sum())
        assert float(x.grad[place]) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-4, abs=1e-7)


@pytest.mark.parity("polycom")
def test_poly_relu():
    got = op.functions.PolyCom(form="relu").module(7).double()(X).detach().numpy()
    positive = np.maximum(X.numpy(), 0)
    np.testing.assert_allclose(got, (positive + positive**2 + positive**3) / 3, rtol=1e-5)


def test_the_norm_does_not_see_the_scale():
    module = op.functions.PolyCom().module(7).double()
    torch.testing.assert_close(module(1000 * X), module(10 * X), atol=1e-5, rtol=1e-5)


def test_published_weights_run_from_the_cube_down():
    found = from_checkpoint(torch.tensor([0.7, -0.5, 0.2]), torch.tensor([0.1])).double()
    np.testing.assert_allclose(found(X).detach().numpy(), slow_norm(X.numpy()), rtol=1e-5)
    with pytest.raises(WrongShape, match="3 weights"):
        from_checkpoint(torch.zeros(4), torch.zeros(1))


def test_coefficients_and_decay():
    method = op.functions.PolyCom(form="relu")
    network = torch.nn.Sequential(torch.nn.Linear(3, 3), method.module(3))
    assert len(list(method.without_decay(network))) == 4
    assert not list(op.functions.PolyCom(decayed=True).without_decay(network))
    with pytest.raises(BadInput, match="form 'rms'"):
        op.functions.PolyCom(form="rms").module(3)
