"""CRReLU by its closed form; the recipe: what it gives for ReLU, that it lowers entropy, and the worst activation."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import optrode as op
from optrode.functions.methods.eafo_crrelu import entropy_correction, worst_activation


def normal(x: Tensor) -> Tensor:
    return torch.exp(-x * x / 2) / math.sqrt(2 * math.pi)


@pytest.mark.parity("eafo-crrelu")
def test_values_gradient_and_the_gradient_of_eps():
    module = op.functions.CRReLU(eps=0.3).module(1).double()
    points = [-3.0, -1.0, -0.2, 0.4, 2.0]
    x = torch.tensor(points, dtype=torch.float64, requires_grad=True)
    module(x).sum().backward()
    eps = float(module.e)
    values = [max(0.0, v) + eps * v * math.exp(-v * v / 2) for v in points]
    assert module(x).tolist() == pytest.approx(values, rel=1e-6)
    slopes = [(v > 0) + eps * (1 - v * v) * math.exp(-v * v / 2) for v in points]
    assert x.grad.tolist() == pytest.approx(slopes, rel=1e-6)
    assert float(module.e.grad) == pytest.approx(sum(v * math.exp(-v * v / 2) for v in points), rel=1e-5)


def test_the_card_s_value_and_what_is_trained():
    method = op.functions.CRReLU()
    network = torch.nn.Sequential(torch.nn.Linear(1, 1), method.module(1))
    assert float(network[1].double()(torch.tensor(-1.0).double()).detach()) == pytest.approx(-0.00606531, abs=1e-7)
    assert [id(p) for p in method.without_decay(network)] == [id(network[1].e)]
    assert not list(op.functions.CRReLU(trainable=False).module(1).parameters())


@pytest.mark.parity("eafo-crrelu")
def test_the_recipe_gives_crrelu_for_the_linear_half():
    t = torch.linspace(0.1, 4, 40, dtype=torch.float64)
    found = entropy_correction(lambda y: 1.0 * y, normal, t)
    torch.testing.assert_close(found, t * normal(t))


def test_a_step_along_the_correction_lowers_the_entropy_as_predicted():
    """For a tanh whose outputs are cut to [-0.9, 0.9]: the entropy by quadrature, and its first variation."""
    t = torch.linspace(-0.9, 0.9, 20001, dtype=torch.float64)
    correction = entropy_correction(torch.atanh, normal, t)

    def entropy(step: float) -> float:
        y = torch.atanh(t) + step * correction
        (slope,) = torch.gradient(y, spacing=(t,))
        q = normal(y) * slope
        return float(torch.trapezoid(-q * torch.log(q), t))

    def ends(step: float) -> float:
        """What moves over the two ends, which the variation inside leaves out."""
        q = normal(torch.atanh(t)) / (1 - t * t)
        return float(-((1 + torch.log(q)) * normal(torch.atanh(t)) * step * correction)[[0, -1]].diff())

    step = 1e-4
    change = entropy(step) - entropy(0.0) - ends(step)
    predicted = -step * float(torch.trapezoid(correction.square(), t))
    assert change < 0 and change == pytest.approx(predicted, rel=0.02)


def test_the_worst_activation_spreads_its_outputs_evenly():
    worst = worst_activation(normal, -8, 8, ends=(-1.0, 1.0))
    drawn = torch.randn(200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(worst(drawn), 2 * torch.special.ndtr(drawn) - 1, atol=1e-6, rtol=0)
    counts = torch.histc(worst(drawn), 20, -1, 1)
    assert float((counts / 10_000 - 1).abs().max()) < 0.05
    tanh = torch.histc(torch.tanh(drawn), 20, -1, 1)
    assert float((tanh / 10_000 - 1).abs().max()) > 0.1
