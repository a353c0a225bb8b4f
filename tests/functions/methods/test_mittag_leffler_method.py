"""Mittag-Leffler functions against mpmath's series and closed forms, and every row against PyTorch."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch
import torch.nn.functional as F

import optrode as op
from optrode.errors import BadInput
from optrode.functions.methods.mittag_leffler import derivative, log_series, mittag_leffler

X = torch.linspace(-8, 8, 161, dtype=torch.float64)


def slow(z: float, a: float, b: float) -> float:
    with mpmath.workdps(60):
        return float(mpmath.nsum(lambda k: mpmath.mpf(z) ** k * mpmath.rgamma(a * k + b), [0, 250], method="direct"))


@pytest.mark.parity("mittag-leffler")
@pytest.mark.parametrize(
    ("form", "usual"),
    [
        ("tanh", torch.tanh), ("mish", F.mish), ("sigmoid", torch.sigmoid), ("swish", F.silu), ("softsign", F.softsign),
        ("gelu", F.gelu), ("relu", torch.relu), ("elu", F.elu),
    ],
)  # fmt: skip
def test_every_row_is_its_usual_function(form: str, usual: object):
    x = X.clone().requires_grad_(True)
    y = op.functions.MittagLefflerUnit(form=form).module(1).double()(x)
    wanted = usual(X)  # type: ignore[operator]
    torch.testing.assert_close(y.detach(), wanted, atol=1e-5, rtol=1e-5)
    y.sum().backward()
    assert torch.isfinite(x.grad).all()
    far = torch.tensor([-60.0, -20.0, 20.0, 60.0], dtype=torch.float64)
    got = op.functions.MittagLefflerUnit(form=form).module(1).double()(far).detach()
    torch.testing.assert_close(got, usual(far), atol=1e-5, rtol=1e-5)  # type: ignore[operator]


@pytest.mark.parity("mittag-leffler")
@pytest.mark.parametrize(("a", "b"), [(2.0, 1.0), (2.0, 2.0), (1.5, 0.7), (1.0, 2.0), (0.5, 1.0), (1.0, 1.0)])
def test_the_function_itself(a: float, b: float):
    z = torch.tensor([-4.0, -1.0, -0.3, 0.0, 0.5, 2.0, 3.0], dtype=torch.float64)
    wanted = [slow(v, a, b) for v in z.tolist()]
    assert mittag_leffler(z, a, b).tolist() == pytest.approx(wanted, rel=1e-8)
    assert log_series(z[3:], a, b).exp().tolist() == pytest.approx(wanted[3:], rel=1e-8)
    step = 1e-6
    differences = (mittag_leffler(z + step, a, b) - mittag_leffler(z - step, a, b)) / (2 * step)
    torch.testing.assert_close(derivative(z, a, b), differences, atol=1e-7, rtol=1e-6)


def test_closed_forms():
    x = torch.linspace(0, 3, 13, dtype=torch.float64)
    torch.testing.assert_close(mittag_leffler(-(x**2), 2.0, 1.0), torch.cos(x), atol=1e-9, rtol=1e-8)
    torch.testing.assert_close(mittag_leffler(-x, 0.5, 1.0), torch.special.erfcx(x))
    torch.testing.assert_close(mittag_leffler(-x, 0.0, 1.0), 1 / (1 + x))
    with pytest.raises(BadInput, match="at least 0"):
        mittag_leffler(x, -1.0, 1.0)


@pytest.mark.parity("mittag-leffler")
@pytest.mark.parametrize("b2", [0.5, 1.0, 1.7, 2.0, 3.0])
def test_the_trained_index_of_tanh(b2: float):
    module = op.functions.MittagLefflerUnit(b2=b2).module(1).double()
    points = [-5.0, -1.3, -0.2, 0.7, 2.0, 6.0]
    x = torch.tensor(points, dtype=torch.float64)
    own = float(module.b2)
    wanted = [v * slow(v * v, 2, 2) / slow(v * v, 2, own) for v in points]
    assert own == pytest.approx(b2, rel=1e-6) and module(x).tolist() == pytest.approx(wanted, rel=1e-6)
    if b2 == 2.0:
        torch.testing.assert_close(module(x).detach(), x, atol=1e-5, rtol=1e-5)
    module(x).sum().backward()
    step = 1e-5
    ends = [sum(v * slow(v * v, 2, 2) / slow(v * v, 2, own + sign * step) for v in points) for sign in (1, -1)]
    by_b2 = (ends[0] - ends[1]) / (2 * step)
    assert float(module.raw.grad) == pytest.approx(by_b2 * (1 - math.exp(-own)), rel=1e-4, abs=1e-7)


def test_only_adaptive_forms_train():
    assert op.functions.MittagLefflerUnit().module(1).raw.requires_grad
    assert not op.functions.MittagLefflerUnit(form="gelu").module(1).raw.requires_grad
    with pytest.raises(BadInput, match="above 0"):
        op.functions.MittagLefflerUnit(b2=-1.0).module(1)
