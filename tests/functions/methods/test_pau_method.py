"""Padé units by sums of powers in NumPy, in every version, with their gradients and starts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import optrode as op
from optrode.errors import BadInput

X = np.array([-3.5, -2.0, -0.7, -0.1, 0.0, 0.4, 1.0, 2.2, 3.0])
A = np.array([0.1, 0.6, -0.3, 0.2, 0.05, -0.02])
B = np.array([-0.4, 0.3, 0.2, -0.1])


def slow(version: str, x: float, a: np.ndarray, b: np.ndarray) -> float:
    above = sum(a[j] * x**j for j in range(6))
    if version == "A":
        return above / (1 + sum(abs(b[k - 1] * x**k) for k in range(1, 5)))
    if version == "C":
        return above / (0.1 + abs(sum(b[k] * x**k for k in range(5))))
    inner = sum(b[k - 1] * x**k for k in range(1, 5))
    return above / (1 + (inner if version == "N" else abs(inner)))


def with_coefficients(version: str) -> torch.nn.Module:
    module = op.functions.PAU(version=version).module(1).double()
    with torch.no_grad():
        module.a.copy_(torch.from_numpy(A))
        module.b.copy_(torch.from_numpy(below(version)))
    return module


def below(version: str) -> np.ndarray:
    return np.array([0.7, *B]) if version == "C" else B


@pytest.mark.parity("pau")
@pytest.mark.parametrize("version", ["A", "B", "C", "D", "N"])
def test_values_and_all_gradients(version: str):
    module = with_coefficients(version).eval()
    x = torch.from_numpy(X).requires_grad_(True)
    y = module(x)
    b = below(version)
    np.testing.assert_allclose(y.detach().numpy(), [slow(version, v, A, b) for v in X], rtol=1e-6)
    y.sum().backward()
    step = 1e-6

    def differences(at: np.ndarray, value: object) -> list[float]:
        found = []
        for place in range(len(at)):
            ends = []
            for sign in (1, -1):
                moved = at.copy()
                moved[place] += sign * step
                ends.append(value(moved))  # type: ignore[operator]
            found.append((ends[0] - ends[1]) / (2 * step))
        return found

    away = np.abs(X) > 0.01  # |x| and its like have a kink at 0
    slopes = [(slow(version, v + step, A, b) - slow(version, v - step, A, b)) / (2 * step) for v in X]
    np.testing.assert_allclose(x.grad.numpy()[away], np.array(slopes)[away], rtol=1e-5, atol=1e-7)
    by_a = differences(A, lambda a: sum(slow(version, v, a, b) for v in X))
    by_b = differences(b, lambda q: sum(slow(version, v, A, q) for v in X))
    np.testing.assert_allclose(module.a.grad.numpy(), by_a, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(module.b.grad.numpy(), by_b, rtol=1e-5, atol=1e-6)


def test_noise_is_there_in_training_alone():
    module = with_coefficients("D")
    x = torch.from_numpy(X)
    drawn = torch.stack([module.train()(x).detach() for _ in range(2000)])
    calm = module.eval()(x)
    assert torch.equal(calm, module(x))
    assert not torch.equal(drawn[0], drawn[1])
    # At 0 only a_0 counts: uniform between 0.9 and 1.1 of itself.
    at_zero = drawn[:, list(X).index(0.0)] / A[0]
    assert 0.9 <= float(at_zero.min()) < 0.91 and 1.09 < float(at_zero.max()) <= 1.1
    assert float(at_zero.std()) == pytest.approx(0.1 / 3**0.5, rel=0.05)


@pytest.mark.parametrize("version", ["A", "B", "C", "N"])
def test_starts_close_to_its_function(version: str):
    x = torch.linspace(-3, 3, 601, dtype=torch.float64)
    got = op.functions.PAU(version=version).module(1).double()(x).detach()
    assert float((got - torch.nn.functional.leaky_relu(x)).abs().max()) < 0.1
    silu = op.functions.PAU(version=version, start="silu").module(1).double()(x).detach()
    assert float((silu - torch.nn.functional.silu(x)).abs().max()) < 0.02


def test_the_published_start_has_its_largest_gap_at_zero():
    x = torch.linspace(-3, 3, 6001, dtype=torch.float64)
    gap = (op.functions.PAU(start="published").module(1).double()(x) - torch.nn.functional.leaky_relu(x)).abs()
    assert float(gap.max()) == pytest.approx(0.0336, abs=1e-4) and abs(float(x[gap.argmax()])) < 1e-2
    with pytest.raises(BadInput, match="version A"):
        op.functions.PAU(version="B", start="published").module(1)


def test_what_is_trained_and_what_decays():
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), op.functions.PAU().module(2))
    kept = list(op.functions.PAU().without_decay(network))
    assert {id(p) for p in kept} == {id(network[1].a), id(network[1].b)}
    assert not list(op.functions.PAU(trainable=False).module(2).parameters())
    with pytest.raises(BadInput, match="version 'E'"):
        op.functions.PAU(version="E").module(2)
