"""APA and AGLU by powers, their special cases, and both gradients."""

from __future__ import annotations

import math

import pytest
import torch

import optrode as op
from optrode.errors import BadInput

Z = [-4.0, -1.0, -0.1, 0.0, 0.6, 2.5]


def slow(z: float, lambda_: float, kappa: float) -> float:
    return float((lambda_ * math.exp(-kappa * z) + 1) ** (-1 / lambda_))


@pytest.mark.parity("apa")
@pytest.mark.parametrize("form", ["gate", "unit"])
@pytest.mark.parametrize(("lambda_", "kappa"), [(1.0, 1.0), (0.3, 1.7), (2.5, -0.4)])
def test_values_and_gradients(form: str, lambda_: float, kappa: float):
    module = op.functions.APA(form=form, start=(lambda_, kappa)).module(1).double()
    z = torch.tensor(Z, dtype=torch.float64, requires_grad=True)
    y = module(z)
    y.sum().backward()
    at, slope = float(module.lambda_), float(module.kappa)

    def value(v: float, at: float, slope: float) -> float:
        return slow(v, at, slope) * (v if form == "unit" else 1)

    assert y.tolist() == pytest.approx([value(v, at, slope) for v in Z], rel=1e-6)
    step = 1e-6
    by_z = [(value(v + step, at, slope) - value(v - step, at, slope)) / (2 * step) for v in Z]
    by_at = sum(value(v, at + step, slope) - value(v, at - step, slope) for v in Z) / (2 * step)
    by_slope = sum(value(v, at, slope + step) - value(v, at, slope - step) for v in Z) / (2 * step)
    assert z.grad.tolist() == pytest.approx(by_z, rel=1e-5, abs=1e-8)
    assert float(module.lambda_.grad) == pytest.approx(by_at, rel=1e-5, abs=1e-8)
    assert float(module.kappa.grad) == pytest.approx(by_slope, rel=1e-5, abs=1e-8)


@pytest.mark.parity("apa")
def test_the_truncated_gradient_leaves_out_one_part():
    lambda_, kappa = 0.7, 1.3
    modules = [
        op.functions.APA(start=(lambda_, kappa), gradient=name).module(1).double() for name in ("true", "truncated")
    ]
    z = torch.tensor(Z, dtype=torch.float64)
    for module in modules:
        module(z).sum().backward()
    true, truncated = (float(module.lambda_.grad) for module in modules)
    p = [slow(v, lambda_, kappa) for v in Z]
    other = sum(v * q * math.log(1 + lambda_ * math.exp(-kappa * v)) / lambda_**2 for v, q in zip(Z, p, strict=True))
    kept = sum(-v * q / (lambda_ * (lambda_ + math.exp(kappa * v))) for v, q in zip(Z, p, strict=True))
    assert truncated == pytest.approx(kept, rel=1e-5) and true == pytest.approx(kept + other, rel=1e-5)
    assert float(modules[0].kappa.grad) == pytest.approx(float(modules[1].kappa.grad))


def test_special_cases():
    z = torch.linspace(-10, 10, 201, dtype=torch.float64)

    def made(form: str, start: tuple[float, float]) -> torch.Tensor:
        return op.functions.APA(form=form, start=start).module(1).double()(z).detach()

    torch.testing.assert_close(made("gate", (1.0, 1.0)), torch.sigmoid(z))
    assert float((made("gate", (1e-4, 1.0)) - torch.exp(-torch.exp(-z))).abs().max()) < 1e-3
    torch.testing.assert_close(made("unit", (1.0, 1.0)), torch.nn.functional.silu(z), atol=1e-6, rtol=1e-6)
    far = torch.tensor([-1e4, 1e4], requires_grad=True)
    op.functions.APA(start=(0.5, 1.0)).module(1)(far).sum().backward()
    assert torch.isfinite(far.grad).all()


def test_starts_and_channels():
    gates = op.functions.APA(form="gate", per="channel").module(64)
    units = op.functions.APA(per="channel").module(64)
    assert gates.lambda_.shape == (64,) and 0 <= float(gates.kappa.min()) < float(gates.kappa.max()) <= 1
    assert float(units.kappa.min()) >= 0.8 and float(units.kappa.max()) <= 1.2
    pictures = torch.randn(2, 64, 3, 3)
    by_channel = op.functions.APA(per="channel").module(64, axis=1)
    got = by_channel(pictures)
    alone = op.functions.APA(start=(float(by_channel.lambda_[5]), float(by_channel.kappa[5]))).module(1)
    torch.testing.assert_close(got[:, 5], alone(pictures[:, 5]))
    with pytest.raises(BadInput, match="did you mean true"):
        op.functions.APA(gradient="tru").module(1)
