"""Expanded gates by their closed forms, with the gradient of alpha."""

from __future__ import annotations

import math

import pytest
import torch

import optrode as op
from optrode.errors import BadInput

GATES = {
    "gelu": lambda v: 0.5 * math.erfc(-v / math.sqrt(2)),
    "silu": lambda v: 1 / (1 + math.exp(-v)),
    "arctan": lambda v: (math.atan(v) + math.pi / 2) / math.pi,
}
POINTS = [-6.0, -1.5, -0.3, 0.0, 0.8, 4.0]


@pytest.mark.parity("expanded-gating")
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("form", ["self-gated", "gate"])
@pytest.mark.parametrize("alpha", [0.0, 0.4])
def test_values_and_gradients(gate: str, form: str, alpha: float):
    module = op.functions.ExpandedGate(gate=gate, form=form, alpha=alpha).module(1).double()
    a = float(module.a)

    def slow(v: float, a: float) -> float:
        expanded = GATES[gate](v) * (1 + 2 * a) - a
        return v * expanded if form == "self-gated" else expanded

    x = torch.tensor(POINTS, dtype=torch.float64, requires_grad=True)
    y = module(x)
    y.sum().backward()
    assert y.tolist() == pytest.approx([slow(v, a) for v in POINTS], rel=1e-6, abs=1e-9)
    wanted = [(slow(v + 1e-6, a) - slow(v - 1e-6, a)) / 2e-6 for v in POINTS]
    assert x.grad.tolist() == pytest.approx(wanted, rel=1e-5, abs=1e-7)
    factor = [(v if form == "self-gated" else 1) * (2 * GATES[gate](v) - 1) for v in POINTS]
    assert float(module.a.grad) == pytest.approx(sum(factor), rel=1e-5, abs=1e-9)


def test_at_zero_they_are_the_usual_ones():
    x = torch.linspace(-8, 8, 101)
    for gate, usual in (("gelu", torch.nn.functional.gelu), ("silu", torch.nn.functional.silu)):
        torch.testing.assert_close(op.functions.ExpandedGate(gate=gate).module(1)(x), usual(x), atol=1e-6, rtol=1e-5)
    far = op.functions.ExpandedGate(gate="arctan").module(1).double()(torch.tensor(-1e6, dtype=torch.float64))
    assert float(far.detach()) == pytest.approx(-1 / math.pi, rel=1e-5)


def test_alpha_takes_no_decay():
    method = op.functions.ExpandedGate()
    network = torch.nn.Sequential(torch.nn.Linear(1, 1), method.module(1))
    assert [id(p) for p in method.without_decay(network)] == [id(network[1].a)]
    assert not list(op.functions.ExpandedGate(trainable=False).module(1).parameters())
    with pytest.raises(BadInput, match="gate 'glu'"):
        op.functions.ExpandedGate(gate="glu").module(1)
