"""Mish against the form with e^x alone, its derivative by the paper's fraction, and the facts of its curve."""

from __future__ import annotations

import pytest
import torch

import optrode as op
from optrode.errors import BadInput


@pytest.mark.parity("mish")
def test_values_and_gradient_by_exponentials():
    x = torch.linspace(-20, 20, 4001, dtype=torch.float64, requires_grad=True)
    y = op.functions.Mish().module(1)(x)
    y.sum().backward()
    v = x.detach()
    e = torch.exp(v)
    n = e * (e + 2)
    torch.testing.assert_close(y.detach(), v * n / (n + 2), atol=1e-12, rtol=1e-10)
    w = 4 * (v + 1) + 4 * e**2 + e**3 + e * (4 * v + 6)
    torch.testing.assert_close(x.grad, e * w / (2 * e + e**2 + 2) ** 2, atol=1e-12, rtol=1e-9)


def test_far_out_and_special_points():
    far = torch.tensor([-1e4, -100.0, 50.0, 1e4])
    got = op.functions.Mish().module(1)(far)
    assert torch.isfinite(got).all()
    torch.testing.assert_close(got, torch.nn.functional.mish(far), atol=1e-6, rtol=1e-6)
    function = op.functions.get("mish")
    assert float(function(torch.tensor(-1.192400, dtype=torch.float64))) == pytest.approx(-0.308843, abs=1e-6)
    assert float(function.derivative(torch.tensor(0.0, dtype=torch.float64))) == pytest.approx(0.6)


def test_hard_form():
    x = torch.linspace(-4, 4, 101, dtype=torch.float64)
    wanted = [v / 2 * min(2.0, max(0.0, v + 2)) for v in x.tolist()]
    assert op.functions.Mish(form="hard").module(1)(x).tolist() == pytest.approx(wanted)
    with pytest.raises(BadInput, match="did you mean hard"):
        op.functions.Mish(form="had").module(1)
