"""GoLU against mpmath, and the facts of its curve."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch

import optrode as op
from optrode.errors import BadInput


@pytest.mark.parity("golu")
@pytest.mark.parametrize("settings", [{}, {"alpha": 1.5, "beta": 0.5, "gamma": 2.0}])
def test_values_and_gradient_in_sixty_digits(settings: dict[str, float]):
    a, b, g = (settings.get(name, 1.0) for name in ("alpha", "beta", "gamma"))
    x = torch.linspace(-100, 100, 801, dtype=torch.float64, requires_grad=True)
    y = op.functions.GoLU(**settings).module(1).double()(x)
    y.sum().backward()
    with mpmath.workdps(60):
        gates = [a * mpmath.exp(-b * mpmath.exp(-g * mpmath.mpf(v))) for v in x.tolist()]
        values = [float(v * gate) for v, gate in zip(x.tolist(), gates, strict=True)]
        slopes = [
            float(gate * (1 + b * g * v * mpmath.exp(-g * mpmath.mpf(v))))
            for v, gate in zip(x.tolist(), gates, strict=True)
        ]
    assert y.tolist() == pytest.approx(values, rel=1e-7, abs=1e-12)
    assert x.grad.tolist() == pytest.approx(slopes, rel=1e-6, abs=1e-10)


def test_special_points_and_far_out():
    function = op.functions.get("golu")
    omega = torch.tensor(-0.5671432904, dtype=torch.float64)
    assert float(function(omega)) == pytest.approx(-0.097260, abs=1e-6)
    assert float(function.derivative(torch.tensor(0.0, dtype=torch.float64))) == pytest.approx(1 / math.e)
    far = torch.tensor([-1e4, -200.0, 200.0, 1e4], requires_grad=True)
    y = op.functions.GoLU().module(1)(far)
    y.sum().backward()
    assert y.tolist() == pytest.approx([0, 0, 200, 1e4]) and far.grad.tolist() == pytest.approx([0, 0, 1, 1])


def test_it_is_the_limit_of_aglu():
    x = torch.linspace(-10, 10, 201, dtype=torch.float64)
    aglu = op.functions.get("aglu")(x, l=1e-4, k=1.0)
    assert float((op.functions.GoLU().module(1)(x) - aglu).abs().max()) < 1e-3


def test_what_is_no_gate():
    with pytest.raises(BadInput, match="both are positive"):
        op.functions.GoLU(gamma=-1.0).module(1)
